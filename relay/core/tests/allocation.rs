//! The hot path allocates nothing, whatever arrives.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::World;
use lanrage_proto::ids::{Destination, Member};
use lanrage_proto::stun::{TransactionId, encode_request};
use lanrage_relay_core::shard::COPIES_PER_PASS;
use lanrage_relay_core::{Verdict, runs};

#[test]
fn a_shard_allocates_nothing() {
    let mut world = World::new(256);
    let (players, leases) = world.party(100);
    let (a, lease) = (&players[0], &leases[0]);
    let to = |member| Destination::One(Member::new(member).unwrap());
    let forged = [&a.frame(lease, to(2), b"forged")[..15], &[0xff]].concat();
    let arrivals = [
        a.frame(lease, to(2), &[0; 1300]),
        a.frame(lease, to(1), b"self"),
        a.frame(lease, to(200), b"nobody"),
        a.frame(lease, Destination::Everyone, b"all 99, in passes"),
        forged,
        encode_request(TransactionId([7; 12])),
        vec![0xf0; 256],
        vec![0xf4; 40],
        Vec::new(),
    ];
    let shard = &mut world.shard;
    let counted = allocation_counter::measure(|| {
        for mut arrival in arrivals {
            shard.begin_pass(world.now.ms);
            shard.prefetch(&arrival);
            let segment_size = arrival.len();
            for run in runs(&mut arrival, segment_size) {
                if shard.handle_run(run, segment_size, a.address) == Verdict::Copy {
                    assert_eq!(shard.targets().len(), COPIES_PER_PASS);
                }
            }
            while shard.poll_copy().is_some() {}
            while shard.is_backlogged() {
                shard.begin_pass(world.now.ms);
                while shard.poll_copy().is_some() {}
            }
        }
    });
    assert_eq!(counted.count_total, 0);
    assert_eq!(shard.counters().copies, 99);
    assert_eq!(shard.counters().skew(), 0);
}
