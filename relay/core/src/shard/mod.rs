//! The decision of one shard: the hot path. Nothing here allocates, waits or reads a clock.

use std::net::SocketAddr;
use std::sync::Arc;

use lanrage_proto::RelayId;
use lanrage_proto::datagram::{Kind, kind};
use lanrage_proto::frame::bind::Bind;
use lanrage_proto::frame::control::Sealed;
use lanrage_proto::frame::hello::Hello;
pub use lanrage_proto::frame::mesh::DELIVERED;
use lanrage_proto::frame::mesh::HEADER_LEN as MESH_HEADER_LEN;
use lanrage_proto::frame::resume::Resume;
use lanrage_proto::stun;
use lanrage_relay_table::{Endpoint, Handle, Reader};

use crate::classes::Classes;
use crate::drops::DropReason;
use crate::mesh::Peers;
use crate::rate::{Meter, Rate};

mod train;
pub use train::{RUN_SEGMENTS_MAX, Runs, runs};
mod ahead;
mod answer;
mod backlog;
mod broadcast;
mod charge;
mod data;
mod hints;
mod mesh;
pub use answer::Answer;
mod counters;
pub use counters::Counters;

use ahead::Ahead;
use backlog::Backlog;
use hints::Hints;
use mesh::Mesh;

/// Copies of broadcasts a shard makes in one pass of its loop; the rest waits for the next. Of 2 µs
/// each they are what others may have to wait for (docs/src/decisions/copies-a-pass.md).
pub const COPIES_PER_PASS: usize = 32;
/// With the fourth of a copy more for each datagram of the pass before: a pass that is long anyway
/// may make as many.
const COPIES_PER_PASS_MAX: usize = 128;
/// Broadcasts that may wait.
pub const BACKLOG_LEN: usize = 1024;
/// STUN answers a second and shard.
const STUN_ANSWERS: Rate = Rate::per_second(2_000, 100);

/// What the shell does with a run of datagrams from one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send the run's first `len` bytes on, in datagrams of the size they came in.
    Forward {
        /// The target, and which of the relay's addresses it talks to.
        to: Endpoint,
        /// All of the run, unless a rate cut it.
        len: usize,
    },
    /// Send the run's first `len` bytes on to another relay, in datagrams of the size they came in,
    /// each with one of [`Shard::mesh_headers`] in place of its first 16 bytes.
    ToRelay {
        /// The relay, and which address to send from.
        to: Endpoint,
        /// All of the run, unless a rate cut it.
        len: usize,
    },
    /// Send `len` bytes of the run, from [`DELIVERED`] on, in datagrams 16 bytes shorter than they
    /// came from another relay.
    FromRelay {
        /// The target, and which of the relay's addresses it talks to.
        to: Endpoint,
        /// Less than came where a segment did not hold or a rate cut the run.
        len: usize,
    },
    /// Send the datagram to each of [`Shard::targets`].
    Copy,
    /// Send the datagram, from [`DELIVERED`] on, to each of [`Shard::targets`].
    CopyFromRelay,
    /// Send this to a member or to another relay.
    Tell {
        /// The target, and which address to send from.
        to: Endpoint,
        /// The datagram.
        answer: Answer,
    },
    /// Send this back to where the run came from.
    Answer(Answer),
    /// Queue the datagram for the binder; [`Shard::refused`] if there is no room.
    ToBinder(Class),
    /// Nothing; it is counted.
    Drop,
}

/// The binder's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// CONTROL and RESUME: of those who have or had a lease.
    Established,
    /// HELLO: anybody's, and cheap.
    Hello,
    /// BIND: anybody's, and as expensive as a hundred others.
    Bind,
}

/// The longest datagram that goes to the binder.
pub const BINDER_DATAGRAM_LEN_MAX: usize = Bind::LEN;

const _: () = assert!(Hello::LEN <= BINDER_DATAGRAM_LEN_MAX);
const _: () = assert!(Sealed::LEN_MAX <= BINDER_DATAGRAM_LEN_MAX);
const _: () = assert!(Resume::LEN <= BINDER_DATAGRAM_LEN_MAX);

/// Whether STUN Binding requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stun {
    /// Within a budget.
    Answer,
    /// They are dropped.
    Ignore,
}

/// One shard's decisions and counts.
///
/// **For each pass of its loop the shell calls [`Shard::begin_pass`], may show it all trains of the
/// pass ([`Shard::prefetch`]), then for each run of each
/// train ([`runs`]) [`Shard::handle_run`], does what the verdict says and looks at
/// [`Shard::poll_activation`]; at the end of the pass it sends what [`Shard::poll_copy`] gives.**
#[derive(Debug)]
pub struct Shard {
    relay: RelayId,
    table: Reader,
    ahead: Ahead,
    classes: Classes,
    now_ms: u64,
    stun: Option<Meter>,
    hints: Hints,
    counters: Counters,
    targets: Vec<Endpoint>,
    copies_left: usize,
    /// When the pass began.
    received_before: u64,
    backlog: Backlog,
    activation: Option<Handle>,
    mesh: Option<Mesh>,
}

impl Shard {
    /// A shard of this relay; all it ever needs is allocated here.
    pub fn new(relay: RelayId, table: Reader, classes: Classes, stun: Stun) -> Self {
        Self {
            relay,
            table,
            ahead: Ahead::new(),
            classes,
            now_ms: 0,
            stun: (stun == Stun::Answer).then(|| Meter::new(STUN_ANSWERS)),
            hints: Hints::default(),
            counters: Counters::default(),
            targets: Vec::with_capacity(COPIES_PER_PASS_MAX),
            copies_left: COPIES_PER_PASS,
            received_before: 0,
            backlog: Backlog::new(BACKLOG_LEN),
            activation: None,
            mesh: None,
        }
    }

    /// Goes on from the counts of the process before.
    pub const fn resume(&mut self, counters: Counters) {
        self.received_before = counters.received;
        self.counters = counters;
    }

    /// Lets the shard take part in data between relays, under a number that no other shard of this
    /// relay has; it knows no other relay until [`Shard::set_peers`].
    pub fn join_mesh(&mut self, number: u8) {
        self.mesh = Some(Mesh::new(number));
    }

    /// The other relays, from now on. Allocates; a shard that has not joined knows none.
    pub fn set_peers(&mut self, peers: Arc<Peers>) {
        if let Some(mesh) = &mut self.mesh {
            mesh.set_peers(peers);
        }
    }

    /// The headers of the last [`Verdict::ToRelay`], one a segment.
    pub fn mesh_headers(&self) -> &[[u8; MESH_HEADER_LEN]] {
        self.mesh.as_ref().map_or(&[], Mesh::headers)
    }

    /// Begins a pass at `now_ms`, milliseconds since the relay's start.
    pub fn begin_pass(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        let received = std::mem::replace(&mut self.received_before, self.counters.received);
        let received = (self.received_before - received) as usize;
        self.copies_left = (COPIES_PER_PASS + received / 4).min(COPIES_PER_PASS_MAX);
    }

    /// Notes a train that a later [`Shard::handle_run`] of this pass will be called with: the first
    /// of those loads the table's lines for all of them.
    pub fn prefetch(&mut self, train: &[u8]) {
        self.ahead.push(&self.table, train);
    }

    /// Decides what becomes of a run: datagrams of `segment_size` bytes with equal headers, or one
    /// datagram. The headers of a run that is sent on are rewritten.
    pub fn handle_run(
        &mut self,
        run: &mut [u8],
        segment_size: usize,
        source: SocketAddr,
    ) -> Verdict {
        if !self.ahead.is_empty() {
            self.ahead.load(&self.table);
        }
        match kind(run) {
            Kind::Data => self.handle_data(run, segment_size.clamp(1, run.len()), source),
            Kind::Stun => self.handle_stun(run, source),
            Kind::Hello => self.hand_over(run, Hello::LEN, Hello::LEN, Class::Hello),
            Kind::Bind => self.hand_over(run, Bind::LEN, Bind::LEN, Class::Bind),
            Kind::Control => {
                self.hand_over(run, Sealed::LEN_MIN, Sealed::LEN_MAX, Class::Established)
            }
            Kind::Resume => self.hand_over(run, Resume::LEN, Resume::LEN, Class::Established),
            Kind::Mesh | Kind::MeshAbsent => {
                self.handle_mesh(run, segment_size.clamp(1, run.len()))
            }
            Kind::Challenge | Kind::Bound | Kind::Unsupported | Kind::Hint | Kind::Resumed => {
                self.drop_one(DropReason::RelayOnlyType)
            }
            Kind::Unknown if run.is_empty() => self.drop_one(DropReason::Length),
            Kind::Unknown => self.drop_one(DropReason::UnknownType),
        }
    }

    /// Where the last [`Verdict::Copy`] or [`Verdict::CopyFromRelay`] goes, as many as the
    /// pass may make.
    pub fn targets(&self) -> &[Endpoint] {
        &self.targets
    }

    /// The next copy of a broadcast that waited; `None` when none waits or the pass has made its
    /// share.
    pub fn poll_copy(&mut self) -> Option<(Endpoint, &[u8])> {
        let to = self.next_copy()?;
        self.backlog.front().map(|(_, frame)| (to, frame))
    }

    /// Whether broadcasts wait for the next pass.
    pub const fn is_backlogged(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// The pending lease that the last run has used: the binder must hear of it. Every run of the
    /// lease gives it again until [`Shard::activation_queued`].
    pub const fn poll_activation(&mut self) -> Option<Handle> {
        self.activation.take()
    }

    /// The binder's queue holds the activation of this lease.
    pub fn activation_queued(&self, handle: Handle) {
        if let Ok(source) = self.table.source(handle) {
            source.owner.mark_activation_reported(handle);
        }
    }

    /// The binder's queue had no room for the datagram of the last [`Verdict::ToBinder`].
    pub fn refused(&mut self) {
        self.counters.to_control -= 1;
        self.counters.drop(DropReason::ControlQueue, 1);
    }

    /// What the shard has counted.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    fn hand_over(&mut self, run: &[u8], shortest: usize, longest: usize, class: Class) -> Verdict {
        if !(shortest..=longest).contains(&run.len()) {
            return self.drop_one(DropReason::Length);
        }
        self.counters.received += 1;
        self.counters.to_control += 1;
        Verdict::ToBinder(class)
    }

    fn handle_stun(&mut self, datagram: &[u8], source: SocketAddr) -> Verdict {
        let Some(meter) = &mut self.stun else {
            return self.drop_one(DropReason::StunOff);
        };
        let Some(id) = stun::binding_request(datagram) else {
            return self.drop_one(DropReason::StunMalformed);
        };
        if !meter.take(self.now_ms) {
            return self.drop_one(DropReason::StunBudget);
        }
        self.counters.received += 1;
        self.counters.answered += 1;
        self.counters.planned += 1;
        Verdict::Answer(Answer::stun(id, source))
    }

    fn drop_one(&mut self, reason: DropReason) -> Verdict {
        self.counters.received += 1;
        self.counters.drop(reason, 1)
    }
}
