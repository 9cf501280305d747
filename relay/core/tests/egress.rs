//! Who is sent for when the way out carries less than is asked of it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use common::{Player, World, address};
use lanrage_proto::frame::bind::Lease;
use lanrage_proto::ids::{Destination, Member, RateClass};
use lanrage_relay_core::DropReason;

const LEN: usize = 500;

/// A queue of so many datagrams that so many leave each millisecond: what finds it full fails.
struct Link {
    queue: VecDeque<SocketAddr>,
    room: usize,
    per_ms: usize,
    delivered: BTreeMap<SocketAddr, u64>,
}

impl Link {
    fn new(per_ms: usize) -> Self {
        Self { queue: VecDeque::new(), room: 200, per_ms, delivered: BTreeMap::new() }
    }

    /// Whether there was room.
    fn send(&mut self, to: SocketAddr) -> bool {
        let has_room = self.queue.len() < self.room;
        if has_room {
            self.queue.push_back(to);
        }
        has_room
    }

    fn pass_a_millisecond(&mut self) {
        for to in self.queue.drain(..self.per_ms.min(self.queue.len())) {
            *self.delivered.entry(to).or_insert(0) += 1;
        }
    }

    fn delivered(&mut self) -> BTreeMap<SocketAddr, u64> {
        std::mem::take(&mut self.delivered)
    }
}

/// Pairs of members, each in a session of its own; the first sends to the second.
struct Pairs {
    world: World,
    pairs: Vec<(Player, Lease, SocketAddr)>,
}

impl Pairs {
    fn new(count: u64) -> Self {
        let mut world = World::new(64);
        let pairs = (1..=count)
            .map(|session| {
                let mut join = |number| {
                    let from = address(&format!("192.0.{session}.{number}:7"));
                    let mut player = Player::new(session, number, from);
                    player.rate_class = RateClass(2);
                    world.advance(10);
                    let lease = world.join(&mut player);
                    (player, lease)
                };
                let (sender, lease) = join(1);
                (sender, lease, join(2).0.address)
            })
            .collect();
        world.is_checked = false;
        Self { world, pairs }
    }

    /// For so long, `demand` datagrams a millisecond of each pair.
    fn run(&mut self, link: &mut Link, ms: usize, demand: &[usize]) -> Vec<f64> {
        link.delivered();
        for _ in 0..ms {
            self.world.now.ms += 1;
            let most = *demand.iter().max().unwrap();
            let mut failed = 0;
            for turn in 0..most {
                for ((player, lease, _), demand) in self.pairs.iter().zip(demand) {
                    // Spread over the millisecond.
                    if (turn * demand) % most < *demand {
                        let to = Destination::One(Member::new(2).unwrap());
                        let frame = player.frame(lease, to, &[0; LEN]);
                        let out = self.world.send(player.address, &frame);
                        failed += out.iter().filter(|out| !link.send(out.to)).count();
                    }
                }
            }
            self.world.shard.egress_failed(failed as u64);
            link.pass_a_millisecond();
        }
        let delivered = link.delivered();
        let of = |(pair, demand): (&(_, _, SocketAddr), &usize)| {
            let asked = (ms * demand) as f64;
            *delivered.get(&pair.2).unwrap_or(&0) as f64 / asked
        };
        self.pairs.iter().zip(demand).map(of).collect()
    }

    fn cut(&self) -> u64 {
        self.world.shard.counters().dropped_for(DropReason::EgressShare)
    }
}

#[test]
fn a_loud_lease_starves_none_of_nine_others() {
    let mut pairs = Pairs::new(10);
    let mut link = Link::new(19);
    // 10 and nine times 1: half of what is asked is carried, and the nine want less than theirs.
    let demand = [20, 2, 2, 2, 2, 2, 2, 2, 2, 2].map(|demand| demand / 2);
    link.per_ms = demand.iter().sum::<usize>() / 2 + 2;
    pairs.run(&mut link, 1_000, &demand);
    let got = pairs.run(&mut link, 5_000, &demand);
    assert!(got[1..].iter().all(|got| *got > 0.97), "{got:?}");
    let left = (link.per_ms - 9) as f64 / 10.0;
    assert!(got[0] > 0.7 * left && got[0] < 1.1 * left, "{got:?}: the rest is the loud one's");
    assert!(pairs.cut() > 0);

    // Once the link carries all again everybody gets all, and nothing is cut.
    link.per_ms = 40;
    pairs.run(&mut link, 6_000, &demand);
    let cut = pairs.cut();
    assert_eq!(pairs.run(&mut link, 1_000, &demand), [1.0; 10]);
    assert_eq!(pairs.cut(), cut);
    assert_eq!(pairs.world.shard.counters().skew(), 0);
}

#[test]
fn equals_share_what_there_is() {
    let mut pairs = Pairs::new(4);
    let mut link = Link::new(8);
    pairs.run(&mut link, 1_000, &[4; 4]);
    let got = pairs.run(&mut link, 5_000, &[4; 4]);
    assert!(got.iter().all(|got| (0.42..0.55).contains(got)), "{got:?}");
}

#[test]
fn a_link_that_carries_all_cuts_nobody() {
    let mut pairs = Pairs::new(4);
    let mut link = Link::new(100);
    let got = pairs.run(&mut link, 2_000, &[1, 5, 10, 20]);
    assert!(got.iter().all(|got| *got == 1.0), "{got:?}");
    assert_eq!(pairs.cut(), 0);
}
