use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU64;

use lanrage_proto::api::Revocation;
use lanrage_proto::frame::bind::{Lease, Refusal};
use lanrage_proto::frame::control::Message;
use lanrage_proto::ids::{Destination, Generation, Member, RateClass};
use lanrage_relay_core::{Caps, DropReason, Outcome};

use crate::common::{Datagram, Player, World, address, is_hint, open_bound};
use crate::step::{MEMBERS, PLAYERS, Step};

/// A lease as the model has it.
#[derive(Clone, Debug)]
struct Held {
    player: usize,
    address: SocketAddr,
    previous: Option<(SocketAddr, u64)>,
    last_seen_ms: u64,
    bound_ms: u64,
    lease: Lease,
    generation: Generation,
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

pub(crate) struct Story {
    world: World,
    model: Model,
    players: Vec<Player>,
    /// The last BIND of each player and the lease it made, however long ago.
    binds: BTreeMap<usize, (Vec<u8>, u64)>,
    former: BTreeMap<usize, Lease>,
    /// The leases that each player was ever given: their resumption tickets.
    tickets: BTreeMap<usize, Vec<Given>>,
    /// The rank of each player's last claim that the relay knows of.
    ranks: BTreeMap<usize, Rank>,
    ports: u16,
    /// Received by relays that have crashed since.
    frames: u64,
    /// The egress has been short.
    has_failed: bool,
}

/// A BIND's stamp, and how often its lease was resumed since.
type Rank = (u64, u32);

/// A lease, and what its ticket claims.
#[derive(Clone, Debug)]
struct Given {
    lease: Lease,
    generation: Generation,
    expires: u64,
    rank: Rank,
}

type Key = (u64, u8);

fn key(player: &Player) -> Key {
    (player.session.0, player.member.number())
}

impl Story {
    pub(crate) fn new() -> Self {
        let players = (0..PLAYERS).map(|at| {
            let device = at % (PLAYERS / 2);
            let (session, member) = (device / MEMBERS as usize, device % MEMBERS as usize);
            let mut player = Player::new(
                session as u64 + 1,
                member as u8 + 1,
                address(&format!("192.0.2.{}:1000", at + 1)),
            );
            player.instance = [at as u8; 16];
            // Without limits but for caps.
            player.rate_class = RateClass(2);
            player
        });
        Self {
            world: World::new(64),
            model: Model::default(),
            players: players.collect(),
            binds: BTreeMap::new(),
            former: BTreeMap::new(),
            tickets: BTreeMap::new(),
            ranks: BTreeMap::new(),
            ports: 2_000,
            frames: 0,
            has_failed: false,
        }
    }

    /// Received by the relay.
    pub(crate) fn frames(&self) -> u64 {
        self.frames + self.world.shard.counters().received
    }

    /// The lease the player may use: its active or its pending one.
    fn held(&mut self, player: usize) -> Option<&mut Held> {
        let key = key(&self.players[player]);
        let is_own = |held: &&mut Held| held.player == player;
        let pending = self.model.pending.get_mut(&key).filter(is_own);
        pending.or_else(|| self.model.active.get_mut(&key).filter(is_own))
    }

    pub(crate) fn run(&mut self, step: &Step) {
        match *step {
            Step::Bind { player } => self.bind(player),
            Step::ReplayBind { player } => self.replay(player),
            Step::Resume { player, is_late } => self.resume(player, is_late),
            Step::Use { player, to } => {
                self.send(player, &[Destination::One(Member::new(to).unwrap())]);
            }
            Step::Broadcast { player } => self.send(player, &[Destination::Everyone]),
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
            Step::Train { player, to, segments } => {
                let to = Destination::One(Member::new(to).unwrap());
                self.send(player, &vec![to; segments]);
            }
            Step::MixedTrain { player, to, segments } => {
                let own = Destination::One(self.players[player].member);
                let to = Destination::One(Member::new(to).unwrap());
                let by_turns: Vec<_> = [to, own].into_iter().cycle().take(segments).collect();
                self.send(player, &by_turns);
            }
            Step::BroadcastTrain { player, segments } => {
                self.send(player, &vec![Destination::Everyone; segments]);
            }
            Step::Junk { first, len } => self.junk(first, len),
            Step::CapLease { player, packets } => {
                let Player { session, member, .. } = self.players[player];
                self.world.binder.set_lease_cap(session, member, caps(packets)).unwrap();
            }
            Step::CapSession { player, packets } => {
                let session = self.players[player].session;
                self.world.binder.set_session_cap(session, caps(packets)).unwrap();
            }
            Step::EgressFails { datagrams } => {
                self.world.egress_failed(datagrams, 100);
                self.has_failed = true;
            }
            Step::Crash => self.crash(),
            Step::Upgrade => self.world.upgrade(),
            Step::ControlLost => self.world.binder.control_lost(),
            Step::ControlFound => self.world.binder.control_found(self.world.now),
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
        let rank = (player.stamp, 0);
        self.claimed(at, (player.generation, expires), rank, result);
        if self.ranks.get(&at) != Some(&rank) {
            // Refused before it was taken: it may be taken yet.
            self.binds.remove(&at);
        }
    }

    fn resume(&mut self, at: usize, is_late: bool) {
        let tickets = self.tickets.get(&at).map_or(&[][..], Vec::as_slice);
        let Some(Given { lease, generation, expires, rank: (stamp, resumed) }) =
            tickets.iter().rev().nth(usize::from(is_late)).cloned()
        else {
            return;
        };
        let player = self.players[at].clone();
        let (key, ticket) = (&lease.resumption_key, &lease.resumption_ticket);
        let result = self.world.resume(&player, key, ticket).expect("a proof that holds");
        self.claimed(at, (generation, expires), (stamp, resumed + 1), result);
    }

    /// What became of a claim, and what became of it according to the model.
    fn claimed(
        &mut self,
        at: usize,
        (generation, expires): (Generation, u64),
        rank: Rank,
        result: Result<Lease, Refusal>,
    ) {
        let now_ms = self.world.now.ms;
        let player = self.players[at].clone();
        let key = key(&player);
        if self.world.now.unix_s > expires + 30 {
            assert_eq!(result.unwrap_err(), Refusal::Expired);
            return;
        }
        let held = [self.model.active.get(&key), self.model.pending.get(&key)];
        let newer = held.into_iter().flatten().any(|held| held.generation > generation);
        if newer || self.model.kicked.get(&key).is_some_and(|minimum| generation.0 < *minimum) {
            assert_eq!(result.unwrap_err(), Refusal::Revoked);
            return;
        }
        if self.ranks.get(&at).is_some_and(|last| rank <= *last) {
            assert_eq!(result.unwrap_err(), Refusal::Replayed);
            return;
        }
        self.ranks.insert(at, rank);
        if let Ok(lease) = &result {
            let tickets = self.tickets.entry(at).or_default();
            tickets.push(Given { lease: lease.clone(), generation, expires, rank });
        }
        let same = |held: &&mut Held| {
            held.player == at && held.address == player.address && held.generation == generation
        };
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
            generation,
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

    /// A valid frame that a limit has cut shows that its lease is not idle, and no more.
    fn seen(&mut self, at: usize) {
        let now_ms = self.world.now.ms;
        if let Some(held) = self.held(at) {
            held.last_seen_ms = now_ms;
        }
    }

    /// Where frames for a member of the session go.
    fn target(&self, session: u64, member: u8) -> Option<SocketAddr> {
        self.model.active.get(&(session, member)).map(|held| held.address)
    }

    /// Sends a train from the player's lease: each segment goes to whom the model says, or is counted
    /// as cut by a cap or a short egress.
    fn send(&mut self, at: usize, destinations: &[Destination]) {
        let Some((from, lease)) = self.held(at).map(|held| (held.address, held.lease.clone()))
        else {
            return;
        };
        let player = self.players[at].clone();
        let frames = destinations.iter().enumerate();
        let train: Vec<_> =
            frames.flat_map(|(number, to)| player.frame(&lease, *to, &[number as u8; 7])).collect();
        let (cut, hints) = (self.cut(), self.world.shard.counters().hints);
        let mut out = self.world.send_train(from, &train, train.len() / destinations.len());
        while self.world.shard.is_backlogged() {
            out.extend(self.world.pass());
        }
        let hints = self.world.shard.counters().hints - hints;
        let mut expected = BTreeSet::new();
        for (number, to) in destinations.iter().enumerate() {
            let members = match to {
                Destination::Everyone => (1..=MEMBERS).collect(),
                Destination::One(member) => vec![member.number()],
            };
            for member in members {
                let is_own = member == player.member.number();
                let home = match to {
                    Destination::Everyone if is_own => None,
                    Destination::One(_) if is_own => Some(from),
                    Destination::Everyone | Destination::One(_) => {
                        self.target(player.session.0, member)
                    }
                };
                expected.extend(home.map(|home| (home, number as u8)));
            }
        }
        let delivered: Vec<_> =
            out.iter().filter(|out| !is_hint(out)).map(|out| (out.to, out.bytes[16])).collect();
        let got: BTreeSet<_> = delivered.iter().copied().collect();
        assert_eq!(delivered.len(), got.len(), "each once");
        assert!(got.is_subset(&expected), "{got:?} of {expected:?}");
        assert_eq!((out.len() - delivered.len()) as u64, hints);
        assert!(out.iter().all(|out| !is_hint(out) || out.to == from));
        let cut = self.cut() - cut;
        if cut == 0 {
            assert_eq!(got, expected);
        } else {
            let numbers: BTreeSet<_> = got.iter().map(|(_, number)| *number).collect();
            let whole = expected.iter().filter(|(_, number)| numbers.contains(number)).count();
            assert_eq!(got.len(), whole, "a frame is cut whole");
            assert!(self.world.binder.caps().count() > 0 || self.has_failed);
        }
        if cut < destinations.len() as u64 {
            self.used(at);
        } else {
            self.seen(at);
        }
    }

    /// Frames that a limit has cut.
    fn cut(&self) -> u64 {
        let counters = self.world.shard.counters();
        let reasons = [
            DropReason::RateLease,
            DropReason::RateSession,
            DropReason::EgressShare,
            DropReason::BroadcastBacklog,
        ];
        reasons.map(|reason| counters.dropped_for(reason)).iter().sum::<u64>()
            + counters.broadcasts_cut
    }

    fn junk(&mut self, first: u8, len: usize) {
        let from = address("203.0.113.99:9");
        let mut datagram = vec![first; len];
        if len > 8 {
            datagram[4..8].copy_from_slice(&0x2112_a442_u32.to_be_bytes());
        }
        let out = self.world.send(from, &datagram);
        let len_max = len.max(44);
        assert!(
            out.len() <= 1 && out.iter().all(|out| out.to == from && out.bytes.len() <= len_max)
        );
    }

    /// What is left are the clients' tickets.
    fn crash(&mut self) {
        self.frames += self.world.shard.counters().received;
        self.world.crash(64);
        self.world.binder.control_found(self.world.now);
        self.model = Model::default();
        self.ranks.clear();
        self.former.clear();
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
        let cut = self.cut();
        let out = self.world.send(from, &player.frame(&lease, own, b"late"));
        if self.cut() > cut {
            assert!(out.is_empty());
            self.seen(at);
            return;
        }
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
        for leases in [&mut self.model.active, &mut self.model.pending] {
            leases.retain(|of, held| *of != key || held.generation.0 >= generation);
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

fn caps(packets: u64) -> Option<Caps> {
    let packets = NonZeroU64::new(packets)?;
    Some(Caps { packets: Some(packets), ..Caps::default() })
}
