//! The relay against a naive model: after every step of a random story, who gets what is what the
//! model says, every count adds up, and nothing crosses sessions.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use common::{Datagram, Player, World, address, is_hint, open_bound};
use lanrage_proto::api::Revocation;
use lanrage_proto::frame::bind::{Lease, Refusal};
use lanrage_proto::frame::control::Message;
use lanrage_proto::ids::{Destination, Generation, Member};
use lanrage_relay_core::Outcome;
use proptest::collection::vec;
use proptest::prelude::*;

const SESSIONS: u64 = 2;
const MEMBERS: u8 = 3;
const PLAYERS: usize = SESSIONS as usize * MEMBERS as usize * 2;

/// Players are numbered; the second half are other instances of the first half's devices.
#[derive(Clone, Debug)]
enum Step {
    Bind {
        player: usize,
    },
    ReplayBind {
        player: usize,
    },
    /// By the ticket of its last lease, or by the one before.
    Resume {
        player: usize,
        is_late: bool,
    },
    Use {
        player: usize,
        to: u8,
    },
    Broadcast {
        player: usize,
    },
    ForgeSource {
        player: usize,
        source: u8,
    },
    ForgeHandle {
        player: usize,
        victim: usize,
    },
    ForgeTag {
        player: usize,
    },
    ForgeAddress {
        player: usize,
    },
    Stale {
        player: usize,
        to: u8,
    },
    Move {
        player: usize,
    },
    UseFormerAddress {
        player: usize,
    },
    Release {
        player: usize,
    },
    Kick {
        player: usize,
    },
    Wait {
        ms: u64,
    },
    /// Another process goes on.
    Upgrade,
}

fn step() -> impl Strategy<Value = Step> {
    let player = || 0..PLAYERS;
    let member = || 1..=MEMBERS + 1;
    prop_oneof![
        4 => player().prop_map(|player| Step::Bind { player }),
        1 => player().prop_map(|player| Step::ReplayBind { player }),
        2 => (player(), any::<bool>())
            .prop_map(|(player, is_late)| Step::Resume { player, is_late }),
        8 => (player(), member()).prop_map(|(player, to)| Step::Use { player, to }),
        3 => player().prop_map(|player| Step::Broadcast { player }),
        1 => (player(), member()).prop_map(|(player, source)| Step::ForgeSource { player, source }),
        1 => (player(), player()).prop_map(|(player, victim)| Step::ForgeHandle { player, victim }),
        1 => player().prop_map(|player| Step::ForgeTag { player }),
        1 => player().prop_map(|player| Step::ForgeAddress { player }),
        1 => (player(), member()).prop_map(|(player, to)| Step::Stale { player, to }),
        2 => player().prop_map(|player| Step::Move { player }),
        2 => player().prop_map(|player| Step::UseFormerAddress { player }),
        1 => player().prop_map(|player| Step::Release { player }),
        1 => player().prop_map(|player| Step::Kick { player }),
        2 => prop_oneof![Just(100), Just(1_000), Just(5_000), Just(40_000)]
            .prop_map(|ms| Step::Wait { ms }),
        2 => Just(Step::Upgrade),
    ]
}

/// A lease as the model has it.
#[derive(Clone, Debug)]
struct Held {
    player: usize,
    address: SocketAddr,
    previous: Option<(SocketAddr, u64)>,
    last_seen_ms: u64,
    bound_ms: u64,
    lease: Lease,
    counter: u64,
}

#[derive(Default)]
struct Model {
    active: BTreeMap<(u64, u8), Held>,
    pending: BTreeMap<(u64, u8), Held>,
    /// When a member's lease went from one instance to another.
    takeovers: BTreeMap<(u64, u8), Vec<u64>>,
    kicked: BTreeMap<(u64, u8), u32>,
}

struct Story {
    world: World,
    model: Model,
    players: Vec<Player>,
    /// The last BIND of each player and the lease it made, however long ago.
    binds: BTreeMap<usize, (Vec<u8>, u64)>,
    former: BTreeMap<usize, Lease>,
    /// The leases that each player was ever given: their resumption tickets.
    tickets: BTreeMap<usize, Vec<Given>>,
    ports: u16,
}

/// A lease, and what its ticket claims.
#[derive(Clone, Debug)]
struct Given {
    lease: Lease,
    generation: Generation,
    expires: u64,
    /// No claim of the instance came later.
    is_last: bool,
}

type Key = (u64, u8);

fn key(player: &Player) -> Key {
    (player.session.0, player.member.number())
}

impl Story {
    fn new() -> Self {
        let players = (0..PLAYERS).map(|at| {
            let device = at % (PLAYERS / 2);
            let (session, member) = (device / MEMBERS as usize, device % MEMBERS as usize);
            let mut player = Player::new(
                session as u64 + 1,
                member as u8 + 1,
                address(&format!("192.0.2.{}:1000", at + 1)),
            );
            player.instance = [at as u8; 16];
            player
        });
        Self {
            world: World::new(64),
            model: Model::default(),
            players: players.collect(),
            binds: BTreeMap::new(),
            former: BTreeMap::new(),
            tickets: BTreeMap::new(),
            ports: 2_000,
        }
    }

    /// The lease the player may use: its active or its pending one.
    fn held(&mut self, player: usize) -> Option<&mut Held> {
        let key = key(&self.players[player]);
        let is_own = |held: &&mut Held| held.player == player;
        let pending = self.model.pending.get_mut(&key).filter(is_own);
        pending.or_else(|| self.model.active.get_mut(&key).filter(is_own))
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Bind { player } => self.bind(player),
            Step::ReplayBind { player } => self.replay(player),
            Step::Resume { player, is_late } => self.resume(player, is_late),
            Step::Use { player, to } => self.use_lease(player, to),
            Step::Broadcast { player } => self.broadcast(player),
            Step::ForgeSource { player, source } => {
                let own = self.players[player].member.number();
                self.forge(player, |frame| frame[7] = if source == own { own + 1 } else { source });
            }
            Step::ForgeHandle { player, victim } => self.forge_handle(player, victim),
            Step::ForgeTag { player } => self.forge(player, |frame| frame[15] ^= 1),
            Step::ForgeAddress { player } => self.forge_address(player),
            Step::Stale { player, to } => self.stale(player, to),
            Step::Move { player } => self.move_lease(player),
            Step::UseFormerAddress { player } => self.use_former_address(player),
            Step::Release { player } => self.release(player),
            Step::Kick { player } => self.kick(player),
            Step::Wait { ms } => self.wait(ms),
            Step::Upgrade => self.world.upgrade(),
        }
        self.world.check();
        let counts = self.world.binder.counts();
        assert_eq!(counts.active, self.model.active.len(), "after {step:?}");
        assert_eq!(counts.pending, self.model.pending.len(), "after {step:?}");
    }

    fn bind(&mut self, at: usize) {
        let now_ms = self.world.now.ms;
        let mut player = self.players[at].clone();
        let ticket = self.world.ticket(&player).sign(&self.world.signing);
        let (frame, mut initiator) = self.world.bind_frame(&mut player, ticket);
        self.players[at].stamp = player.stamp;
        let answers = self.world.send(player.address, &frame);
        let result = open_bound(&answers[0].bytes, &mut initiator);
        self.binds.insert(at, (frame, now_ms));
        let expires = self.world.now.unix_s + 3_600;
        self.claimed(at, (player.generation, expires), true, result);
    }

    fn resume(&mut self, at: usize, is_late: bool) {
        let tickets = self.tickets.get(&at).map_or(&[][..], Vec::as_slice);
        let Some(Given { lease, generation, expires, is_last }) =
            tickets.iter().rev().nth(usize::from(is_late)).cloned()
        else {
            return;
        };
        let player = self.players[at].clone();
        let (key, ticket) = (&lease.resumption_key, &lease.resumption_ticket);
        let result = self.world.resume(&player, key, ticket).expect("a proof that holds");
        self.claimed(at, (generation, expires), is_last, result);
    }

    /// What became of a claim, and what became of it according to the model.
    fn claimed(
        &mut self,
        at: usize,
        (generation, expires): (Generation, u64),
        is_next: bool,
        result: Result<Lease, Refusal>,
    ) {
        let now_ms = self.world.now.ms;
        let player = self.players[at].clone();
        let key = key(&player);
        if self.world.now.unix_s > expires + 30 {
            assert_eq!(result.unwrap_err(), Refusal::Expired);
            return;
        }
        if self.model.kicked.get(&key).is_some_and(|minimum| generation.0 < *minimum) {
            assert_eq!(result.unwrap_err(), Refusal::Revoked);
            return;
        }
        if !is_next {
            assert_eq!(result.unwrap_err(), Refusal::Replayed);
            return;
        }
        let tickets = self.tickets.entry(at).or_default();
        tickets.iter_mut().for_each(|given| given.is_last = false);
        if let Ok(lease) = &result {
            tickets.push(Given { lease: lease.clone(), generation, expires, is_last: true });
        }
        let same = |held: &&mut Held| held.player == at && held.address == player.address;
        let renewed = match self.model.active.get_mut(&key).filter(same) {
            Some(held) => Some(held),
            None => self.model.pending.get_mut(&key).filter(same),
        };
        if let Some(held) = renewed {
            let lease = result.expect("a renewal is granted");
            assert_eq!((lease.handle, lease.tag), (held.lease.handle, held.lease.tag));
            (held.lease, held.counter, held.bound_ms) = (lease, 0, now_ms);
            return;
        }
        let contested = self
            .model
            .takeovers
            .get(&key)
            .is_some_and(|times| times.iter().filter(|ms| now_ms - **ms < 60_000).count() >= 3);
        let rival = self.model.active.get(&key).is_some_and(|held| held.player != at);
        if rival && contested {
            assert_eq!(result.unwrap_err(), Refusal::Duplicate);
            return;
        }
        let lease = result.expect("a bind is granted");
        self.former.insert(at, lease.clone());
        let held = Held {
            player: at,
            address: player.address,
            previous: None,
            last_seen_ms: now_ms,
            bound_ms: now_ms,
            lease,
            counter: 0,
        };
        self.model.pending.insert(key, held);
    }

    fn replay(&mut self, at: usize) {
        let Some((frame, bound_ms)) = self.binds.get(&at).cloned() else { return };
        let age_ms = self.world.now.ms - bound_ms;
        self.world.send(self.players[at].address, &frame);
        match self.world.outcome {
            Some(Outcome::Repeated) => assert!(age_ms <= 5_100),
            Some(Outcome::Refused(Refusal::Replayed | Refusal::Revoked)) => {
                assert!(age_ms > 4_900);
                // And this answer is kept in its turn.
                self.binds.insert(at, (frame, self.world.now.ms));
            }
            // The address or the epoch is another one by now.
            Some(Outcome::BadCookie) => {}
            other => panic!("a replayed BIND became {other:?}"),
        }
    }

    /// What a valid frame does to the leases of its member.
    fn used(&mut self, at: usize) {
        let now_ms = self.world.now.ms;
        let key = key(&self.players[at]);
        if let Some(mut held) = self.model.pending.remove(&key) {
            if held.player != at {
                self.model.pending.insert(key, held);
            } else {
                held.last_seen_ms = now_ms;
                let former = self.model.active.insert(key, held);
                let takeovers = self.model.takeovers.entry(key).or_default();
                match former {
                    Some(former) if former.player != at => takeovers.push(now_ms),
                    Some(_) => {}
                    None => takeovers.clear(),
                }
                return;
            }
        }
        if let Some(held) = self.model.active.get_mut(&key) {
            held.last_seen_ms = now_ms;
        }
    }

    /// Where frames for a member of the session go.
    fn target(&self, session: u64, member: u8) -> Option<SocketAddr> {
        self.model.active.get(&(session, member)).map(|held| held.address)
    }

    fn use_lease(&mut self, at: usize, to: u8) {
        let Some((from, lease)) = self.held(at).map(|held| (held.address, held.lease.clone()))
        else {
            return;
        };
        let player = self.players[at].clone();
        let destination = Destination::One(Member::new(to).unwrap());
        let out = self.world.send(from, &player.frame(&lease, destination, b"payload"));
        let expected = match to == player.member.number() {
            true => Some(from),
            false => self.target(player.session.0, to),
        };
        match expected {
            Some(to) => {
                assert_eq!(out.len(), 1);
                assert_eq!(out[0].to, to);
                assert_eq!(&out[0].bytes[16..], b"payload");
            }
            None => assert!(out.len() == 1 && is_hint(&out[0]) && out[0].to == from),
        }
        self.used(at);
    }

    fn broadcast(&mut self, at: usize) {
        let Some((from, lease)) = self.held(at).map(|held| (held.address, held.lease.clone()))
        else {
            return;
        };
        let player = self.players[at].clone();
        let out = self.world.send(from, &player.frame(&lease, Destination::Everyone, b"all"));
        let got: BTreeSet<_> = out.iter().map(|copy| copy.to).collect();
        let expected: BTreeSet<_> = (1..=MEMBERS)
            .filter(|member| *member != player.member.number())
            .filter_map(|member| self.target(player.session.0, member))
            .collect();
        assert_eq!(out.len(), got.len(), "each once");
        assert_eq!(got, expected);
        self.used(at);
    }

    fn assert_undelivered(out: &[Datagram], from: SocketAddr) {
        assert!(out.iter().all(|out| is_hint(out) && out.to == from), "{out:?}");
    }

    fn forge(&mut self, at: usize, change: impl FnOnce(&mut [u8])) {
        let Some((from, lease)) = self.held(at).map(|held| (held.address, held.lease.clone()))
        else {
            return;
        };
        let mut frame = self.players[at].frame(&lease, Destination::Everyone, b"forged");
        change(&mut frame);
        let out = self.world.send(from, &frame);
        Self::assert_undelivered(&out, from);
    }

    /// Its own address and tag with another's handle; and then the other's tag, too.
    fn forge_handle(&mut self, at: usize, victim: usize) {
        let Some(theirs) = self.held(victim).map(|held| held.lease.clone()) else { return };
        let Some((from, own)) = self.held(at).map(|held| (held.address, held.lease.clone())) else {
            return;
        };
        if own.handle == theirs.handle {
            return;
        }
        let mixed = Lease { tag: own.tag, ..theirs.clone() };
        for lease in [mixed, theirs] {
            let frame = self.players[at].frame(&lease, Destination::Everyone, b"forged");
            let out = self.world.send(from, &frame);
            Self::assert_undelivered(&out, from);
        }
    }

    fn forge_address(&mut self, at: usize) {
        let Some(lease) = self.held(at).map(|held| held.lease.clone()) else { return };
        let from = address("203.0.113.1:1");
        let frame = self.players[at].frame(&lease, Destination::Everyone, b"forged");
        let out = self.world.send(from, &frame);
        Self::assert_undelivered(&out, from);
    }

    /// A lease that was once the player's, from the address it has now.
    fn stale(&mut self, at: usize, to: u8) {
        let Some(former) = self.former.get(&at).cloned() else { return };
        let key = key(&self.players[at]);
        let lives = [self.model.active.get(&key), self.model.pending.get(&key)]
            .into_iter()
            .flatten()
            .any(|held| held.lease.handle == former.handle && held.lease.tag == former.tag);
        if lives {
            return;
        }
        let player = self.players[at].clone();
        let destination = Destination::One(Member::new(to).unwrap());
        let out = self.world.send(player.address, &player.frame(&former, destination, b"stale"));
        Self::assert_undelivered(&out, player.address);
    }

    fn move_lease(&mut self, at: usize) {
        self.ports += 1;
        self.players[at].address.set_port(self.ports);
        let player = self.players[at].clone();
        let now_ms = self.world.now.ms;
        let Some(held) = self.held(at) else { return };
        let (lease, counter) = (held.lease.clone(), held.counter);
        held.counter += 2;
        held.previous = Some((held.address, now_ms));
        held.address = player.address;
        assert_eq!(self.world.rebind(&player, &lease, counter + 1), Some(player.address));
    }

    /// Accepted for 3 s after a move; the answer goes to the new address.
    fn use_former_address(&mut self, at: usize) {
        let Some(held) = self.held(at) else { return };
        let Some((from, _)) = held.previous else { return };
        let (lease, home) = (held.lease.clone(), held.address);
        let player = self.players[at].clone();
        let own = Destination::One(player.member);
        let out = self.world.send(from, &player.frame(&lease, own, b"late"));
        assert_eq!((out.len(), out[0].to, is_hint(&out[0])), (1, home, false));
        self.used(at);
    }

    fn release(&mut self, at: usize) {
        let Some(held) = self.held(at) else { return };
        let frame =
            Message::Release.seal(&held.lease.key_to_relay, held.lease.handle, held.counter + 1);
        let handle = held.lease.handle;
        self.world.send(self.players[at].address, &frame);
        assert_eq!(self.world.outcome, Some(Outcome::Released));
        self.model.active.retain(|_, held| held.lease.handle != handle);
        self.model.pending.retain(|_, held| held.lease.handle != handle);
    }

    /// The member's next device has the next generation.
    fn kick(&mut self, at: usize) {
        let key = key(&self.players[at]);
        let generation = self.players[at].generation.0 + 1;
        self.world.binder.revoke(&Revocation {
            session: self.players[at].session,
            member: self.players[at].member,
            generation: Generation(generation),
            forget_after: u64::MAX,
        });
        let of = |held: &Held, players: &[Player]| players[held.player].generation.0 < generation;
        let players = &self.players;
        if self.model.active.get(&key).is_some_and(|held| of(held, players)) {
            self.model.active.remove(&key);
        }
        if self.model.pending.get(&key).is_some_and(|held| of(held, players)) {
            self.model.pending.remove(&key);
        }
        let minimum = self.model.kicked.entry(key).or_insert(0);
        *minimum = (*minimum).max(generation);
        self.players[at].generation = Generation(generation);
    }

    fn wait(&mut self, ms: u64) {
        self.world.advance(ms);
        let now_ms = self.world.now.ms;
        self.model.pending.retain(|_, held| now_ms < held.bound_ms + 3_000);
        // The sweep comes by every 2 s: the waits here never end inside its uncertainty.
        self.model.active.retain(|_, held| now_ms < held.last_seen_ms + 30_000);
        let gone = self.world.binder.counts().active != self.model.active.len();
        if gone {
            self.world.advance(2_200);
            let now_ms = self.world.now.ms;
            self.model.pending.retain(|_, held| now_ms < held.bound_ms + 3_000);
            self.model.active.retain(|_, held| now_ms < held.last_seen_ms + 30_000);
        }
        for held in self.model.active.values_mut().chain(self.model.pending.values_mut()) {
            held.previous = held.previous.filter(|(_, since)| now_ms < since + 3_000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_model(steps in vec(step(), 1..120)) {
        let mut story = Story::new();
        for step in &steps {
            story.run(step);
        }
    }
}
