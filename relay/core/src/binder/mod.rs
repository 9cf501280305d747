//! Binding: all that is not data, and every edit of the table.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;

use lanrage_proto::api::Revocation;
use lanrage_proto::datagram::{Kind, kind};
use lanrage_proto::signed::RelayCertificate;
use lanrage_proto::{KeyId, PoolId, RelayId};
use lanrage_relay_table::{Counts, Handle, LocalId, Writer};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use zeroize::Zeroizing;

use crate::classes::Classes;
use crate::egress::{Egress, SentTotals};

mod outcome;
pub use outcome::{BinderCounters, End, Outcome};
mod answers;
mod bans;
pub use bans::{Ban, KeyPrefix};
mod bind;
mod budgets;
mod caps;
pub use caps::{Cap, CapError, Caps};
mod control;
mod cookies;
mod drain;
pub use drain::Draining;
mod hello;
mod leases;
mod memory;
pub use memory::{MemoryError, binder_words};
mod frozen;
pub use frozen::ThawError;
mod given;
pub use given::GivenLease;
mod listing;
pub use listing::LeaseView;
mod ranks;
mod records;
mod resume;
mod revocations;
mod timers;

use answers::Answers;
use bans::Bans;
use budgets::Budgets;
use caps::Standing;
use cookies::{Cookies, Place};
use drain::Drain;
use memory::Memory;
use ranks::Ranks;
use revocations::Revocations;
use timers::Timers;

/// A new lease is dropped when nothing uses it for this long.
pub const PENDING_TIMEOUT_MS: u64 = 3_000;
/// A lease is dropped when no valid frame comes for this long.
pub const IDLE_TIMEOUT_MS: u64 = 30_000;
/// After a rebind the former address is accepted for this long.
pub const SETTLE_MS: u64 = 3_000;
/// By how much the clocks of control and relay may differ.
pub const CLOCK_LEEWAY_S: u64 = 30;
/// Without control a ticket holds this much longer, for leases and for binding.
pub const LOST_CONTROL_GRACE_S: u64 = 24 * 3600;
/// Once control is back, what clients have to renew leases whose tickets ran out meanwhile.
pub const RECOVERY_MS: u64 = 120_000;
/// Takeovers by other instances of a device within [`TAKEOVER_WINDOW_MS`]; the next is refused.
pub const TAKEOVERS_MAX: usize = 3;
/// See [`TAKEOVERS_MAX`].
pub const TAKEOVER_WINDOW_MS: u64 = 60_000;

/// The two clocks of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: milliseconds since the relay's start, the same clock as the shards'.
    pub ms: u64,
    /// Seconds since 1970, for tickets alone.
    pub unix_s: u64,
}

/// What a relay is, for as long as it runs.
#[derive(Debug)]
pub struct Identity {
    /// As enrolled.
    pub relay: RelayId,
    /// As enrolled.
    pub pool: PoolId,
    /// X25519 private key, of the handshakes.
    pub key: Zeroizing<[u8; 32]>,
    /// Makes the leases' control keys.
    pub secret: Zeroizing<[u8; 32]>,
    /// Seals resumption tickets; outlives the process.
    pub resumption: Zeroizing<[u8; 32]>,
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// From this one of the relay's addresses.
    pub local: LocalId,
    /// To whom.
    pub to: SocketAddr,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// Whether the stream from control lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Lost,
    Present { since_ms: u64 },
}

/// How much the binder remembers, beside the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Leases with their records.
    pub records: usize,
    /// Answers for questions that come again.
    pub answers: usize,
    /// Revocations.
    pub revocations: usize,
    /// Timers.
    pub timers: usize,
}

/// The relay's one binder.
///
/// **The shell calls [`Binder::handle_datagram`] for each datagram from a shard,
/// [`Binder::handle_activation`] for each activation and [`Binder::handle_timeout`] at
/// [`Binder::poll_timeout`]; after each call it sends what [`Binder::poll_transmit`] gives, and says
/// by [`Binder::spent`] how long a datagram took.**
#[derive(Debug)]
pub struct Binder {
    identity: Identity,
    table: Writer,
    memory: Memory,
    certificate: Option<RelayCertificate>,
    signing_keys: Vec<(KeyId, [u8; 32])>,
    control: Control,
    revocations: Revocations,
    bans: Bans,
    drain: Option<Drain>,
    cookies: Cookies,
    answers: Answers,
    ranks: Ranks,
    budgets: Budgets,
    classes: Classes,
    standing: Standing,
    egress: Egress,
    timers: Timers,
    transmits: VecDeque<Transmit>,
    counters: BinderCounters,
    rng: ChaCha20Rng,
}

impl Binder {
    /// A binder that has no certificate, no signing keys and no control yet.
    /// Its shards have the same classes. What it keeps for each lease is in memory of its own, which is
    /// never given back.
    pub fn new(
        identity: Identity,
        table: Writer,
        classes: Classes,
        seed: [u8; 32],
        now: Now,
    ) -> Self {
        let memory = Memory::begin(Memory::allocate(table.capacity()), table.capacity());
        let memory = memory.expect("it was allocated for this capacity");
        Self::with_memory(identity, table, classes, memory, seed, now)
    }

    /// A binder in memory that the caller provides: [`binder_words`] words, all zero.
    ///
    /// # Errors
    /// The memory is too small, or not zero.
    pub fn new_in(
        words: &'static [AtomicU64],
        identity: Identity,
        table: Writer,
        classes: Classes,
        seed: [u8; 32],
        now: Now,
    ) -> Result<Self, MemoryError> {
        let memory = Memory::begin(words, table.capacity())?;
        Ok(Self::with_memory(identity, table, classes, memory, seed, now))
    }

    fn with_memory(
        identity: Identity,
        table: Writer,
        classes: Classes,
        memory: Memory,
        seed: [u8; 32],
        now: Now,
    ) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let (mut ranks, mut prefixes, mut answers) = ([0; 16], [0; 16], [0; 16]);
        rng.fill_bytes(&mut ranks);
        rng.fill_bytes(&mut prefixes);
        rng.fill_bytes(&mut answers);
        Self {
            identity,
            table,
            memory,
            certificate: None,
            signing_keys: Vec::new(),
            control: Control::Lost,
            revocations: Revocations::default(),
            bans: Bans::default(),
            drain: None,
            cookies: Cookies::new(&mut rng, now.ms),
            answers: Answers::new(answers),
            ranks: Ranks::new(ranks, memory.ranks),
            budgets: Budgets::new(prefixes),
            classes,
            standing: Standing::default(),
            egress: Egress::new(now.ms),
            timers: Timers::new(now.ms),
            transmits: VecDeque::new(),
            counters: BinderCounters::default(),
            rng,
        }
    }

    /// The certificate that CHALLENGE carries.
    pub fn set_certificate(&mut self, certificate: RelayCertificate) {
        self.certificate = Some(certificate);
    }

    /// The keys that tickets are signed with; replaces those before.
    pub fn set_signing_keys(&mut self, keys: Vec<(KeyId, [u8; 32])>) {
        self.signing_keys = keys;
    }

    /// The stream from control lives: tickets hold until they expire.
    pub fn control_found(&mut self, now: Now) {
        if self.control == Control::Lost {
            self.control = Control::Present { since_ms: now.ms };
        }
    }

    /// The stream from control is dead: tickets hold for [`LOST_CONTROL_GRACE_S`] longer.
    pub fn control_lost(&mut self) {
        self.control = Control::Lost;
    }

    /// One more revocation: ends the leases it is about.
    pub fn revoke(&mut self, revocation: &Revocation) {
        self.revocations.insert(revocation);
        self.end_revoked(revocation);
    }

    /// All revocations that matter; forgets others.
    pub fn replace_revocations(&mut self, revocations: &[Revocation]) {
        self.revocations.clear();
        revocations.iter().for_each(|revocation| self.revoke(revocation));
    }

    /// Handles a datagram that a shard has handed over.
    pub fn handle_datagram(
        &mut self,
        now: Now,
        datagram: &[u8],
        source: SocketAddr,
        local: LocalId,
    ) -> Outcome {
        let place = Place { remote: source, local };
        let outcome = match kind(datagram) {
            Kind::Hello => self.handle_hello(now, datagram, place),
            Kind::Bind => self.handle_bind(now, datagram, place),
            Kind::Resume => self.handle_resume(now, datagram, place),
            Kind::Control => self.handle_control(now, datagram, place),
            Kind::Stun
            | Kind::Data
            | Kind::Challenge
            | Kind::Bound
            | Kind::Unsupported
            | Kind::Hint
            | Kind::Resumed
            | Kind::Mesh
            | Kind::MeshAbsent
            | Kind::Unknown => Outcome::Malformed,
        };
        self.counters.count(outcome);
        outcome
    }

    /// The last datagram took so long, with the sending of its answer: what each kind of datagram may
    /// cost is a share of the binder's time.
    pub fn spent(&mut self, now: Now, ns: u64) {
        self.budgets.charge(now.ms, ns);
    }

    /// What the shards have sent by now, to be said every tenth of a second: while some of it fails, every
    /// lease has its share of the way out.
    pub fn handle_sent(&mut self, now: Now, sent: SentTotals) {
        self.classes.set_share(self.egress.update(now.ms, sent));
    }

    /// A frame has used a pending lease: it becomes its member's own.
    pub fn handle_activation(&mut self, now: Now, handle: Handle) {
        self.activate(now, handle);
    }

    /// Activates what shards have reported to whoever served before: their marks outlive a process,
    /// its queues do not.
    pub fn recall_activations(&mut self, now: Now) {
        let is_reported = |handle: &Handle| {
            let owner = self.table.owner(*handle);
            owner.is_some_and(|owner| owner.is_activation_reported(*handle))
        };
        let pending = self.timers.pending.iter().map(|(_, handle)| *handle);
        for handle in pending.filter(is_reported).collect::<Vec<_>>() {
            self.activate(now, handle);
        }
    }

    /// Ends leases whose time is over and forgets what is old.
    pub fn handle_timeout(&mut self, now: Now) {
        self.run_timers(now);
    }

    /// When [`Binder::handle_timeout`] is due, on the monotonic clock.
    pub fn poll_timeout(&self) -> u64 {
        let drain = self.drain.as_ref().map_or(u64::MAX, Drain::next_ms);
        self.timers.next_ms().min(self.cookies.rotate_at_ms()).min(drain)
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// What the binder has counted.
    pub const fn counters(&self) -> &BinderCounters {
        &self.counters
    }

    /// The table's counts.
    pub fn counts(&self) -> Counts {
        self.table.counts()
    }

    /// What the binder's identities are off by: 0.
    pub fn skew(&self) -> u64 {
        let counts = self.table.counts();
        self.counters.skew((counts.active + counts.pending) as u64)
    }

    /// How many revocations hold.
    pub fn revocations(&self) -> usize {
        self.revocations.len()
    }

    /// How much the binder remembers.
    pub fn stored(&self) -> Stored {
        Stored {
            records: self.table.counts().active + self.table.counts().pending,
            answers: self.answers.len(),
            revocations: self.revocations.len(),
            timers: self.timers.len(),
        }
    }

    fn transmit(&mut self, to: Place, bytes: Vec<u8>) {
        self.transmits.push_back(Transmit { local: to.local, to: to.remote, bytes });
    }
}
