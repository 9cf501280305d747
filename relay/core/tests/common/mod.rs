//! A relay of one shard and one binder in virtual time, and clients made of the protocol crate.
#![allow(
    clippy::wildcard_enum_match_arm,
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use ed25519_dalek::SigningKey;
use lanrage_proto::datagram::{Kind, kind};
use lanrage_proto::frame::Nonce;
use lanrage_proto::frame::bind::{Bind, BindRequest, BindResult, Bound, Lease, Refusal};
use lanrage_proto::frame::challenge::Challenge;
use lanrage_proto::frame::control::{Message, Sealed};
use lanrage_proto::frame::data::{HEADER_LEN, Sent};
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::frame::resume::{Resume, Resumed};
use lanrage_proto::handshake::Initiator;
use lanrage_proto::ids::{
    Destination, Generation, KeyId, Member, PoolId, RateClass, RelayId, SessionId,
};
use lanrage_proto::signed::{RelayCertificate, Ticket, TicketBody};
use lanrage_proto::{Signature, TunnelKey};
use lanrage_relay_core::binder::{ThawError, binder_words};
use lanrage_relay_core::shard::DELIVERED;
use lanrage_relay_core::{
    Binder, Classes, DropReason, GivenLease, Identity, KeyPrefix, Now, Outcome, SentTotals, Shard,
    Stun, Verdict, runs,
};
use lanrage_relay_table::{Capacity, Endpoint, LocalId};
use x25519_dalek::{PublicKey, StaticSecret};

pub const RELAY: RelayId = RelayId(7);
pub const POOL: PoolId = PoolId(3);
pub const LOCAL: LocalId = LocalId(0);
pub const START_UNIX: u64 = 1_800_000_000;

/// The static key of a relay by its number, [`RELAY`]'s is `[0x11; 32]`.
pub fn relay_private(relay: RelayId) -> [u8; 32] {
    [relay.0 as u8 + 10; 32]
}

/// Where a relay receives.
pub fn relay_address(relay: RelayId) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, relay.0 as u8], 51820))
}

pub fn public(private: [u8; 32]) -> TunnelKey {
    TunnelKey(PublicKey::from(&StaticSecret::from(private)).to_bytes())
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// One device in one session.
#[derive(Clone, Debug)]
pub struct Player {
    pub session: SessionId,
    pub member: Member,
    pub generation: Generation,
    pub rate_class: RateClass,
    pub private: [u8; 32],
    pub instance: [u8; 16],
    pub stamp: u64,
    pub address: SocketAddr,
}

impl Player {
    pub fn new(session: u64, member: u8, address: SocketAddr) -> Self {
        Self {
            session: SessionId(session),
            member: Member::new(member).unwrap(),
            generation: Generation(1),
            rate_class: RateClass(0),
            private: [member; 32],
            instance: [member; 16],
            stamp: 0,
            address,
        }
    }

    pub fn frame(&self, lease: &Lease, destination: Destination, payload: &[u8]) -> Vec<u8> {
        let sent = Sent::new(RelayId(0), destination, self.member, lease.handle, lease.tag);
        [sent.encode().as_slice(), payload].concat()
    }
}

pub struct World {
    pub relay: RelayId,
    pub now: Now,
    pub shard: Shard,
    pub binder: Binder,
    pub signing: SigningKey,
    /// What the last datagram became at the binder.
    pub outcome: Option<Outcome>,
    /// Whether every step is followed by [`World::check`].
    pub is_checked: bool,
    failed: u64,
    sent: u64,
    nonces: u64,
    /// The table's memory and the binder's.
    memory: [&'static [AtomicU64]; 2],
}

pub fn words(count: usize) -> &'static [AtomicU64] {
    (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>().leak()
}

/// A lease of a party of four, without a bind.
pub fn given(number: u32) -> GivenLease {
    GivenLease {
        session: SessionId(u64::from(number / 4)),
        member: Member::new((number % 4) as u8 + 1).unwrap(),
        generation: Generation(1),
        key: KeyPrefix([1; 8]),
        next: RelayId(0),
        rate_class: RateClass(0),
        expires: u64::MAX,
        instance: [number as u8; 16],
        address: SocketAddr::from((Ipv6Addr::from(u128::from(number)), 4000)),
        local: LOCAL,
    }
}

/// What a datagram costs the binder here, as measured by `examples/binder_cost.rs`.
const fn spent_ns(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Bound | Outcome::Renewed | Outcome::Refused(_) => 300_000,
        Outcome::Resumed | Outcome::Rebound | Outcome::RebindChallenged => 10_000,
        _ => 3_000,
    }
}

pub fn identity(relay: RelayId) -> Identity {
    Identity {
        relay,
        pool: POOL,
        key: relay_private(relay).into(),
        secret: [0x22; 32].into(),
        resumption: [0x33; 32].into(),
    }
}

impl World {
    pub fn new(leases: u32) -> Self {
        Self::at(RELAY, leases)
    }

    pub fn at(relay: RelayId, leases: u32) -> Self {
        let now = Now { ms: 1_000, unix_s: START_UNIX };
        let signing = SigningKey::from_bytes(&[0x44; 32]);
        let capacity = Capacity::for_leases(leases);
        let memory = [capacity.words(), binder_words(capacity)].map(words);
        let (writer, reader) = lanrage_relay_table::create(memory[0], capacity).unwrap();
        let classes = Classes::default();
        let binder =
            Binder::new_in(memory[1], identity(relay), writer, classes.clone(), [0x55; 32], now);
        let mut world = Self {
            relay,
            now,
            shard: Shard::new(relay, reader, classes, Stun::Answer),
            binder: binder.unwrap(),
            signing,
            outcome: None,
            is_checked: true,
            failed: 0,
            sent: 0,
            nonces: 0,
            memory,
        };
        world.equip();
        world.binder.control_found(now);
        world
    }

    /// The relay dies and comes back with what it keeps on disk.
    pub fn crash(&mut self, leases: u32) {
        let [table, binder] = self.memory;
        table.iter().chain(binder).for_each(|word| word.store(0, Ordering::Relaxed));
        let (writer, reader) =
            lanrage_relay_table::create(table, Capacity::for_leases(leases)).unwrap();
        let classes = Classes::default();
        self.shard = Shard::new(self.relay, reader, classes.clone(), Stun::Answer);
        self.nonces += 1;
        let mut seed = [0x66; 32];
        seed[..8].copy_from_slice(&self.nonces.to_be_bytes());
        let own = identity(self.relay);
        self.binder = Binder::new_in(binder, own, writer, classes, seed, self.now).unwrap();
        (self.sent, self.failed) = (0, 0);
        self.equip();
    }

    /// Another process goes on: from memory, and from what this one has frozen. Its own secret on disk
    /// is another, which must not matter.
    pub fn upgrade(&mut self) {
        let frozen = self.binder.freeze();
        let (writer, reader) = lanrage_relay_table::adopt(self.memory[0]).unwrap();
        let own = Identity { secret: [0x99; 32].into(), ..identity(self.relay) };
        let seed = [self.now.ms as u8; 32];
        let classes = Classes::default();
        let binder =
            Binder::thaw(&frozen, self.memory[1], own, writer, classes.clone(), seed, self.now);
        self.binder = binder.unwrap();
        assert_eq!(*self.binder.freeze(), *frozen);
        let counters = *self.shard.counters();
        self.shard = Shard::new(self.relay, reader, classes, Stun::Answer);
        self.shard.resume(counters);
        self.equip();
        self.check();
    }

    /// A binder from damaged state, if it can be.
    pub fn thaw(&self, frozen: &[u8]) -> Result<Binder, ThawError> {
        let (writer, _) = lanrage_relay_table::adopt(self.memory[0]).unwrap();
        Binder::thaw(
            frozen,
            self.memory[1],
            identity(self.relay),
            writer,
            Classes::default(),
            [1; 32],
            self.now,
        )
    }

    fn equip(&mut self) {
        let certificate = RelayCertificate {
            key_id: KeyId(1),
            pool: POOL,
            relay: self.relay,
            ipv4: match relay_address(self.relay) {
                SocketAddr::V4(at) => Some(at),
                SocketAddr::V6(_) => None,
            },
            ipv6: None,
            key: public(relay_private(self.relay)),
            not_after: START_UNIX + 86_400,
            signature: Signature([0; 64]),
        };
        self.binder.set_certificate(certificate.sign(&self.signing));
        self.binder.set_signing_keys(vec![(KeyId(1), self.signing.verifying_key().to_bytes())]);
    }

    pub fn check(&self) {
        if !self.is_checked {
            return;
        }
        let counters = self.shard.counters();
        assert_eq!(counters.skew(), 0, "{counters:?}");
        assert_eq!(self.binder.skew(), 0, "{:?}", self.binder.counters());
        assert_eq!(counters.planned, self.sent, "planned is what the shell was told to send");
        assert_eq!(
            self.binder.stored().records,
            self.binder.counts().active + self.binder.counts().pending
        );
    }

    /// Sends one datagram to the relay and returns all that the relay sends because of it.
    pub fn send(&mut self, from: SocketAddr, datagram: &[u8]) -> Vec<Datagram> {
        self.send_train(from, datagram, datagram.len())
    }

    pub fn send_train(
        &mut self,
        from: SocketAddr,
        train: &[u8],
        segment_size: usize,
    ) -> Vec<Datagram> {
        let mut out = Vec::new();
        self.outcome = None;
        self.shard.begin_pass(self.now.ms);
        self.shard.prefetch(train);
        let mut train = train.to_vec();
        for run in runs(&mut train, segment_size) {
            let verdict = self.shard.handle_run(run, segment_size, from);
            let activation = self.shard.poll_activation();
            match verdict {
                Verdict::Forward { to, len } => {
                    let to = to.remote();
                    out.extend(
                        run[..len]
                            .chunks(segment_size.max(1))
                            .map(|bytes| Datagram { to, bytes: bytes.to_vec() }),
                    );
                }
                Verdict::ToRelay { to, len } => {
                    let headers = self.shard.mesh_headers().iter();
                    let segments = run[..len].chunks(segment_size.max(1));
                    assert_eq!(headers.len(), segments.len(), "a header for each");
                    out.extend(headers.zip(segments).map(|(header, segment)| Datagram {
                        to: at(&to),
                        bytes: [header, &segment[HEADER_LEN..]].concat(),
                    }));
                }
                Verdict::FromRelay { to, len } => {
                    let frames = run[DELIVERED][..len].chunks(segment_size - DELIVERED.start);
                    out.extend(frames.map(|bytes| Datagram { to: at(&to), bytes: bytes.to_vec() }));
                }
                Verdict::Copy => out.extend(
                    self.shard
                        .targets()
                        .iter()
                        .map(|to| Datagram { to: at(to), bytes: run.to_vec() }),
                ),
                Verdict::CopyFromRelay => out.extend(
                    self.shard
                        .targets()
                        .iter()
                        .map(|to| Datagram { to: at(to), bytes: run[DELIVERED].to_vec() }),
                ),
                Verdict::Tell { to, answer } => {
                    out.push(Datagram { to: at(&to), bytes: answer.as_bytes().to_vec() });
                }
                Verdict::Answer(answer) => {
                    out.push(Datagram { to: from, bytes: answer.as_bytes().to_vec() });
                }
                Verdict::ToBinder(_) => {
                    let outcome = self.binder.handle_datagram(self.now, run, from, LOCAL);
                    self.binder.spent(self.now, spent_ns(outcome));
                    self.outcome = Some(outcome);
                }
                Verdict::Drop => {}
            }
            if let Some(handle) = activation {
                self.shard.activation_queued(handle);
                self.binder.handle_activation(self.now, handle);
            }
        }
        while let Some((to, bytes)) = self.shard.poll_copy() {
            let to = to.remote();
            out.push(Datagram { to, bytes: bytes.to_vec() });
        }
        self.sent += out.len() as u64;
        while let Some(transmit) = self.binder.poll_transmit() {
            assert_eq!(transmit.local, LOCAL);
            out.push(Datagram { to: transmit.to, bytes: transmit.bytes });
        }
        self.check();
        out
    }

    /// So many more of the shard's datagrams, `len` bytes each, were not sent for lack of room.
    pub fn egress_failed(&mut self, datagrams: u64, len: u64) {
        self.failed += datagrams;
        let counters = self.shard.counters();
        let sent = SentTotals {
            datagrams: counters.planned,
            bytes: counters.planned * len,
            failed: self.failed,
            cut: counters.dropped_for(DropReason::EgressShare),
        };
        self.binder.handle_sent(self.now, sent);
    }

    /// One more pass of the shard's loop without arrivals.
    pub fn pass(&mut self) -> Vec<Datagram> {
        let mut out = Vec::new();
        self.shard.begin_pass(self.now.ms);
        while let Some((to, bytes)) = self.shard.poll_copy() {
            let to = to.remote();
            out.push(Datagram { to, bytes: bytes.to_vec() });
        }
        self.sent += out.len() as u64;
        self.check();
        out
    }

    /// Lets time pass, with the binder's timers.
    pub fn advance(&mut self, ms: u64) {
        let end = self.now.ms + ms;
        while self.now.ms < end {
            let next = self.binder.poll_timeout().clamp(self.now.ms + 1, end);
            self.now.ms = next;
            self.now.unix_s = START_UNIX + (next - 1_000) / 1_000;
            self.binder.handle_timeout(self.now);
        }
        self.check();
    }

    pub fn ticket(&self, player: &Player) -> TicketBody {
        TicketBody {
            key_id: KeyId(1),
            pool: POOL,
            session: player.session,
            member: player.member,
            generation: player.generation,
            rate_class: player.rate_class,
            key: public(player.private),
            relays: [RelayId(5), RELAY, RelayId(8)],
            not_before: self.now.unix_s,
            expires: self.now.unix_s + 3_600,
        }
    }

    pub fn challenge(&mut self, from: SocketAddr) -> Challenge {
        self.nonces += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.nonces.to_be_bytes());
        let hello = Hello { version_min: 1, version_max: 1, nonce: Nonce(nonce) };
        let answers = self.send(from, &hello.encode());
        assert_eq!(answers.len(), 1, "a HELLO has one answer");
        assert_eq!(answers[0].to, from);
        Challenge::decode(&answers[0].bytes).unwrap()
    }

    /// A BIND, ready to send, and what opens its answer.
    pub fn bind_frame(&mut self, player: &mut Player, ticket: Ticket) -> (Vec<u8>, Initiator) {
        let Challenge { nonce, cookie, certificate } = self.challenge(player.address);
        player.stamp += 1;
        let request = BindRequest { ticket, instance: player.instance, stamp: player.stamp };
        let mut seed = [player.member.number(); 32];
        seed[..8].copy_from_slice(&self.nonces.to_be_bytes());
        let (initiator, noise) = Initiator::start(
            &player.private,
            &certificate.key,
            (nonce, cookie, certificate.relay),
            &request.encode(),
            seed,
        )
        .unwrap();
        (Bind { nonce, cookie, noise: &noise }.encode(), initiator)
    }

    pub fn bind_with(&mut self, player: &mut Player, body: TicketBody) -> Result<Lease, Refusal> {
        let ticket = body.sign(&self.signing);
        let (frame, mut initiator) = self.bind_frame(player, ticket);
        let answers = self.send(player.address, &frame);
        assert_eq!(answers.len(), 1, "a BIND with a good cookie has one answer");
        open_bound(&answers[0].bytes, &mut initiator)
    }

    pub fn bind(&mut self, player: &mut Player) -> Result<Lease, Refusal> {
        let body = self.ticket(player);
        self.bind_with(player, body)
    }

    /// Binds and uses the lease once.
    pub fn join(&mut self, player: &mut Player) -> Lease {
        let lease = self.bind(player).unwrap();
        let probe = player.frame(&lease, Destination::One(player.member), b"probe");
        assert_eq!(self.send(player.address, &probe).len(), 1, "a self-addressed frame comes back");
        lease
    }

    /// Session 1 with so many members, each at an address of its own.
    pub fn party(&mut self, members: u8) -> (Vec<Player>, Vec<Lease>) {
        let player = |at| Player::new(1, at, address(&format!("192.0.{at}.1:7")));
        let mut players: Vec<_> = (1..=members).map(player).collect();
        let mut join = |player: &mut Player| {
            // Within the budget of binds.
            self.advance(10);
            self.join(player)
        };
        let leases = players.iter_mut().map(&mut join).collect();
        (players, leases)
    }

    pub fn resume(
        &mut self,
        player: &Player,
        key: &[u8; 32],
        ticket: &[u8],
    ) -> Option<Result<Lease, Refusal>> {
        let Challenge { nonce, cookie, .. } = self.challenge(player.address);
        let frame = Resume::new(nonce, cookie, ticket, key, RELAY).encode();
        let answers = self.send(player.address, &frame);
        let answer = answers.first()?;
        let resumed = Resumed::decode(&answer.bytes).unwrap();
        Some(lease_of(resumed.open(key, cookie).unwrap()))
    }

    /// Moves a lease to where `player` is now.
    pub fn rebind(&mut self, player: &Player, lease: &Lease, counter: u64) -> Option<SocketAddr> {
        let key = &lease.key_to_relay;
        let frame = Message::Rebind.seal(key, lease.handle, counter);
        let answers = self.send(player.address, &frame);
        let challenge = open_control(&answers.first()?.bytes, lease)?;
        let Message::RebindChallenge(cookie) = challenge else { return None };
        let frame = Message::RebindAnswer(cookie).seal(key, lease.handle, counter + 1);
        let rebound = open_control(&self.send(player.address, &frame).first()?.bytes, lease)?;
        if let Message::Rebound(address) = rebound { Some(address) } else { None }
    }
}

/// Where an endpoint is.
fn at(endpoint: &Endpoint) -> SocketAddr {
    endpoint.remote()
}

pub fn open_control(datagram: &[u8], lease: &Lease) -> Option<Message> {
    Sealed::decode(datagram).ok()?.open(&lease.key_to_client).ok()
}

pub fn open_bound(datagram: &[u8], initiator: &mut Initiator) -> Result<Lease, Refusal> {
    let bound = Bound::decode(datagram).unwrap();
    let payload = initiator.finish(bound.noise).unwrap();
    lease_of(BindResult::decode(&payload).unwrap())
}

fn lease_of(result: BindResult) -> Result<Lease, Refusal> {
    match result {
        BindResult::Lease(lease) => Ok(*lease),
        BindResult::Refused { reason, .. } => Err(reason),
    }
}

pub fn is_hint(datagram: &Datagram) -> bool {
    kind(&datagram.bytes) == Kind::Hint
}
