//! What comes by streams, decided as on every shard, and what goes to them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::Thread;

use lanrage_proto::frame::data::HEADER_LEN;
use lanrage_proto::frame::mesh::DATAGRAM_LEN_MAX;
use lanrage_proto::stream::Waiting;
use lanrage_relay_core::shard::DELIVERED;
use lanrage_relay_core::{Class, STREAM_LOCAL, Shard, Verdict, stream_address, stream_number};
use lanrage_relay_table::Endpoint;
use lanrage_relay_uring::{Batch, SocketId};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connection::Connection;
use super::outlet::Parcel;
use super::{Closed, Counts, Dropped, Refused, StreamsView, WAITING_LEN};
use crate::clock::Clock;
use crate::handover::ShardState;
use crate::mesh::Subscription;
use crate::queues::{Item, Queues};

/// A stream: its tasks and the exchange share it.
#[derive(Debug)]
pub(super) struct Stream {
    number: u64,
    /// Stands for it in the table.
    source: SocketAddr,
    pub(super) connection: RefCell<Connection>,
    waiting: RefCell<Waiting>,
    /// There may be something to send.
    pub(super) sendable: Notify,
    /// The first reason to end it.
    end: Cell<Option<Closed>>,
    /// When a datagram last came.
    pub(super) heard: Cell<Instant>,
}

impl Stream {
    pub(super) fn new(number: u64, peer: SocketAddr, connection: Connection) -> Rc<Self> {
        Rc::new(Self {
            number,
            source: stream_address(number, peer),
            connection: RefCell::new(connection),
            waiting: RefCell::new(Waiting::new(WAITING_LEN)),
            sendable: Notify::new(),
            end: Cell::new(None),
            heard: Cell::new(Instant::now()),
        })
    }

    pub(super) fn end(&self, cause: Closed) {
        self.end.set(self.end.get().or(Some(cause)));
        self.sendable.notify_one();
    }

    pub(super) const fn is_over(&self) -> bool {
        self.end.get().is_some()
    }

    /// How many datagrams gave way.
    fn push(&self, datagram: &[u8]) -> u64 {
        self.sendable.notify_one();
        self.waiting.borrow_mut().push(datagram)
    }
}

/// The ways out: streams, and UDP in batches.
#[derive(Debug)]
struct Ways {
    streams: BTreeMap<u64, Rc<Stream>>,
    batch: Batch,
    /// By local id.
    sockets: Box<[SocketId]>,
    counts: Counts,
}

impl Ways {
    fn send(&mut self, to: Endpoint, datagram: &[u8]) {
        match stream_number(&to) {
            Some(stream) => {
                self.counts.stream_to_stream += 1;
                self.send_by(stream, datagram);
            }
            None => {
                let socket = self.sockets[usize::from(to.local.0)];
                self.batch.tx().send(socket, to.remote(), datagram);
            }
        }
    }

    fn send_by(&mut self, stream: u64, datagram: &[u8]) {
        self.counts.to_streams += 1;
        match self.streams.get(&stream) {
            Some(stream) => self.counts.drop(Dropped::Full, stream.push(datagram)),
            None => self.counts.drop(Dropped::Gone, 1),
        }
    }
}

/// The shard of all streams.
///
/// **For whatever came together: [`Exchange::begin_pass`], then [`Exchange::handle`] for each
/// datagram of a stream and [`Exchange::deliver`] for each of other threads, then
/// [`Exchange::end_pass`].**
#[derive(Debug)]
pub(super) struct Exchange {
    core: Shard,
    mesh: Subscription,
    /// A frame for another relay, put together.
    crossing: Vec<u8>,
    ways: Ways,
    queues: Arc<Queues>,
    binder: Thread,
    binder_has_work: bool,
    clock: Clock,
    now_ms: u64,
    view: Arc<StreamsView>,
}

impl Exchange {
    pub(super) fn new(
        (core, mesh): (Shard, Subscription),
        (batch, sockets): (Batch, Box<[SocketId]>),
        (queues, binder): (Arc<Queues>, Thread),
        clock: Clock,
        view: Arc<StreamsView>,
    ) -> Self {
        let mut counts = Counts::default();
        counts.stream_to_stream = view.shard.to_streams.load(Ordering::Relaxed);
        let ways = Ways { streams: BTreeMap::new(), batch, sockets, counts };
        Self {
            core,
            mesh,
            crossing: Vec::with_capacity(DATAGRAM_LEN_MAX),
            ways,
            queues,
            binder,
            binder_has_work: false,
            clock,
            now_ms: 0,
            view,
        }
    }

    pub(super) fn refuse(&mut self, reason: Refused) {
        self.ways.counts.refuse(reason);
    }

    pub(super) fn open(&mut self, stream: &Rc<Stream>) {
        self.ways.counts.accepted += 1;
        self.ways.counts.open += 1;
        self.ways.streams.insert(stream.number, stream.clone());
    }

    pub(super) const fn note_established(&mut self) {
        self.ways.counts.established += 1;
    }

    /// The stream has ended, and what waits for it goes nowhere.
    pub(super) fn close(&mut self, stream: &Stream) {
        let Ways { streams, counts, .. } = &mut self.ways;
        if streams.remove(&stream.number).is_some() {
            let waiting = &mut *stream.waiting.borrow_mut();
            counts.drop(Dropped::Gone, waiting.take(&mut Vec::new(), usize::MAX));
            counts.close(stream.end.get().unwrap_or(Closed::Ended));
            counts.open -= 1;
        }
    }

    pub(super) fn begin_pass(&mut self) {
        self.now_ms = self.clock.ms();
        self.core.begin_pass(self.now_ms);
        if let Some(peers) = self.mesh.poll() {
            self.core.set_peers(peers);
        }
    }

    /// A datagram that came by a stream.
    pub(super) fn handle(&mut self, stream: &Stream, datagram: &mut [u8]) {
        stream.heard.set(Instant::now());
        let len = datagram.len();
        let verdict = self.core.handle_run(datagram, len, stream.source);
        if let Some(handle) = self.core.poll_activation()
            && self.queues.activations.push(handle).is_ok()
        {
            self.core.activation_queued(handle);
            self.binder_has_work = true;
        }
        match verdict {
            Verdict::Forward { to, .. } => self.ways.send(to, datagram),
            Verdict::Copy => {
                self.core.targets().iter().for_each(|to| self.ways.send(*to, datagram));
            }
            Verdict::Answer(answer) => {
                self.ways.send(Endpoint::new(stream.source, STREAM_LOCAL), answer.as_bytes());
            }
            Verdict::ToRelay { to, .. } => {
                self.crossing.clear();
                self.core.mesh_headers().iter().for_each(|header| self.crossing.extend(header));
                self.crossing.extend_from_slice(&datagram[HEADER_LEN..]);
                self.ways.send(to, &self.crossing);
            }
            Verdict::FromRelay { to, len } => self.ways.send(to, &datagram[DELIVERED][..len]),
            Verdict::CopyFromRelay => {
                let delivered = &datagram[DELIVERED];
                self.core.targets().iter().for_each(|to| self.ways.send(*to, delivered));
            }
            Verdict::Tell { to, answer } => self.ways.send(to, answer.as_bytes()),
            Verdict::ToBinder(class) => self.hand_over(class, datagram, stream.source),
            Verdict::Drop => {}
        }
    }

    /// A datagram that another thread has for a stream.
    pub(super) fn deliver(&mut self, parcel: &Parcel) {
        self.ways.send_by(parcel.stream, parcel.datagram());
    }

    pub(super) fn end_pass(&mut self) {
        while let Some((to, datagram)) = self.core.poll_copy() {
            self.ways.send(to, datagram);
        }
        self.ways.batch.send();
        if std::mem::take(&mut self.binder_has_work) {
            self.binder.unpark();
        }
        let counts = self.ways.counts;
        self.view.shard.to_streams.store(counts.stream_to_stream, Ordering::Relaxed);
        self.view.shard.publish_streams(self.core.counters(), self.now_ms);
        self.view.publish(counts);
    }

    /// Sends what waits; what the next process goes on from.
    pub(super) fn leave(&mut self) -> ShardState {
        while self.is_backlogged() {
            self.begin_pass();
            self.end_pass();
        }
        self.view.shard.leave(self.core.counters(), self.ways.batch.tally())
    }

    /// Whether broadcasts wait for the next pass.
    pub(super) const fn is_backlogged(&self) -> bool {
        self.core.is_backlogged()
    }

    /// Adds to `target` what the stream's socket is to send.
    pub(super) fn transmit(&mut self, stream: &Stream, target: &mut Vec<u8>) {
        let waiting = &mut *stream.waiting.borrow_mut();
        let sent = stream.connection.borrow_mut().transmit(waiting, target);
        self.ways.counts.sent += sent;
    }

    fn hand_over(&mut self, class: Class, datagram: &[u8], source: SocketAddr) {
        let queued = Item::new(datagram, source, STREAM_LOCAL)
            .is_some_and(|item| self.queues.of(class).push(item).is_ok());
        match queued {
            true => self.binder_has_work = true,
            false => self.core.refused(),
        }
    }
}
