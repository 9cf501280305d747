//! One shard: a pinned thread that receives, asks the core, and sends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use lanrage_proto::frame::data::HEADER_LEN;
use lanrage_proto::frame::mesh::GROWTH;
use lanrage_relay_core::shard::{DELIVERED, RUN_SEGMENTS_MAX};
use lanrage_relay_core::{Class, STREAM_LOCAL, Shard, Verdict, runs};
use lanrage_relay_table::{Endpoint, LocalId};
use lanrage_relay_uring::{Backend, Handler, Received, SocketId, Tx};

use crate::clock::Clock;
use crate::handover::{Gate, ShardState};
use crate::mesh::Subscription;
use crate::published::ShardView;
use crate::queues::{Item, Queues};
use crate::streams::Outlet;

/// A turn lasts no longer, so that a stuck shard shows.
const TURN_MAX: Duration = Duration::from_millis(250);

/// What a shard works with.
#[derive(Debug)]
pub(crate) struct Relayer {
    pub(crate) core: Shard,
    /// By local id.
    pub(crate) sockets: Box<[SocketId]>,
    pub(crate) queues: Arc<Queues>,
    pub(crate) binder: Thread,
    pub(crate) outlet: Outlet,
    pub(crate) clock: Clock,
    pub(crate) view: Arc<ShardView>,
    pub(crate) mesh: Subscription,
    pub(crate) pass: Pass,
    pub(crate) number: usize,
    pub(crate) gate: Arc<Gate<ShardState>>,
}

/// What a pass of the loop has done so far.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    now_ms: u64,
    has_begun: bool,
    binder_has_work: bool,
    #[cfg(feature = "misdeliver")]
    former: Option<Endpoint>,
}

/// Forwards until told to stop.
///
/// # Errors
/// What makes the shard's sockets useless.
pub(crate) fn forward(
    backend: &mut Backend,
    relayer: &mut Relayer,
    stop: &AtomicBool,
) -> io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        if relayer.gate.is_closed() {
            drain(backend, relayer)?;
            let left = relayer.view.leave(relayer.core.counters(), backend.tally());
            relayer.gate.clone().wait(relayer.number, left, stop);
            continue;
        }
        let wait = if relayer.core.is_backlogged() { Duration::ZERO } else { TURN_MAX };
        backend.turn(relayer, wait)?;
    }
    drain(backend, relayer)
}

/// Sends all that was received, and receives no more: what is in the sockets may be another process's.
fn drain(backend: &mut Backend, relayer: &mut Relayer) -> io::Result<()> {
    backend.drain(relayer)?;
    while relayer.core.is_backlogged() {
        backend.drain(relayer)?;
    }
    Ok(())
}

impl Handler for Relayer {
    fn prefetch(&mut self, bytes: &[u8]) {
        self.begin_pass();
        self.core.prefetch(bytes);
    }

    fn receive(&mut self, arrival: Received<'_>, tx: &mut Tx<'_>) {
        let Received { socket, source, bytes, segment_size } = arrival;
        for run in runs(bytes, segment_size) {
            let verdict = self.core.handle_run(run, segment_size, source);
            self.report_activation();
            match verdict {
                Verdict::Forward { to, len } => {
                    let train = (len > segment_size).then_some(segment_size as u16);
                    self.forward(tx, to, &run[..len], train);
                    #[cfg(feature = "misdeliver")]
                    self.misdeliver(tx, to, &run[..len], train);
                }
                Verdict::ToRelay { to, len } => self.cross(tx, to, &run[..len], segment_size),
                Verdict::FromRelay { to, len } => {
                    let segment_size = segment_size - DELIVERED.start;
                    let train = (len > segment_size).then_some(segment_size as u16);
                    self.forward(tx, to, &run[DELIVERED][..len], train);
                }
                Verdict::Copy => self.copy(tx, run),
                Verdict::CopyFromRelay => self.copy(tx, &run[DELIVERED]),
                Verdict::Tell { to, answer } => {
                    self.tell(tx, to, answer.as_bytes());
                }
                Verdict::Answer(answer) => {
                    tx.send(socket, source, answer.as_bytes());
                }
                Verdict::ToBinder(class) => self.hand_over(class, run, source, socket),
                Verdict::Drop => {}
            }
        }
    }

    fn batch_end(&mut self, tx: &mut Tx<'_>) {
        let is_idle = !self.pass.has_begun && !self.core.is_backlogged();
        self.begin_pass();
        while let Some((to, bytes)) = self.core.poll_copy() {
            match self.sockets.get(usize::from(to.local.0)) {
                Some(socket) => tx.send(*socket, to.remote(), bytes),
                None => to_stream(&mut self.outlet, &self.view, to, bytes),
            }
        }
        self.outlet.flush();
        if std::mem::take(&mut self.pass.binder_has_work) {
            self.binder.unpark();
        }
        self.view.publish(self.core.counters(), self.pass.now_ms, is_idle);
        self.pass.has_begun = false;
    }
}

impl Relayer {
    /// Reads the clock, once a pass.
    fn begin_pass(&mut self) {
        if !self.pass.has_begun {
            self.pass.has_begun = true;
            self.pass.now_ms = self.clock.ms();
            self.core.begin_pass(self.pass.now_ms);
            if let Some(peers) = self.mesh.poll() {
                self.core.set_peers(peers);
            }
        }
    }

    fn forward(&mut self, tx: &mut Tx<'_>, to: Endpoint, run: &[u8], segment_size: Option<u16>) {
        if let Some(socket) = self.sockets.get(usize::from(to.local.0)) {
            return tx.forward(*socket, to.remote(), run, segment_size);
        }
        for datagram in run.chunks(segment_size.map_or(run.len(), usize::from).max(1)) {
            to_stream(&mut self.outlet, &self.view, to, datagram);
        }
    }

    /// Sends the run on to another relay, every segment behind its longer header.
    fn cross(&self, tx: &mut Tx<'_>, to: Endpoint, run: &[u8], segment_size: usize) {
        let Some(socket) = self.sockets.get(usize::from(to.local.0)) else { return };
        let mut pieces = [&[][..]; 2 * RUN_SEGMENTS_MAX];
        let segments = run.chunks(segment_size);
        let used = 2 * segments.len();
        for (pair, (header, segment)) in
            pieces.chunks_exact_mut(2).zip(self.core.mesh_headers().iter().zip(segments))
        {
            (pair[0], pair[1]) = (header, &segment[HEADER_LEN..]);
        }
        let size = (segment_size + GROWTH) as u16;
        tx.forward_gathered(*socket, to.remote(), &pieces[..used], size);
    }

    fn copy(&mut self, tx: &mut Tx<'_>, frame: &[u8]) {
        let Self { core, outlet, view, sockets, .. } = self;
        for to in core.targets() {
            match sockets.get(usize::from(to.local.0)) {
                Some(socket) => tx.forward(*socket, to.remote(), frame, None),
                None => to_stream(outlet, view, *to, frame),
            }
        }
    }

    /// Sends an answer to whom it is for, who need not be whom the question came from.
    fn tell(&mut self, tx: &mut Tx<'_>, to: Endpoint, answer: &[u8]) {
        match self.sockets.get(usize::from(to.local.0)) {
            Some(socket) => tx.send(*socket, to.remote(), answer),
            None => to_stream(&mut self.outlet, &self.view, to, answer),
        }
    }

    fn report_activation(&mut self) {
        if let Some(handle) = self.core.poll_activation()
            && self.queues.activations.push(handle).is_ok()
        {
            self.core.activation_queued(handle);
            self.pass.binder_has_work = true;
        }
    }

    fn hand_over(&mut self, class: Class, datagram: &[u8], source: SocketAddr, socket: SocketId) {
        let local = LocalId(socket.index() as u16);
        let queued = Item::new(datagram, source, local)
            .is_some_and(|item| self.queues.of(class).push(item).is_ok());
        match queued {
            true => self.pass.binder_has_work = true,
            false => self.core.refused(),
        }
    }

    /// Breaks what the relay promises, to see that the tests notice.
    #[cfg(feature = "misdeliver")]
    fn misdeliver(&mut self, tx: &mut Tx<'_>, to: Endpoint, run: &[u8], train: Option<u16>) {
        let former = self.pass.former.replace(to);
        if let Some(other) = former.filter(|other| *other != to) {
            self.forward(tx, other, run, train);
        }
    }
}

/// A datagram for a lease at none of the relay's addresses, but at a stream.
#[cold]
fn to_stream(outlet: &mut Outlet, view: &ShardView, to: Endpoint, datagram: &[u8]) {
    debug_assert_eq!(to.local, STREAM_LOCAL);
    add(&view.to_streams);
    if !outlet.push(to, datagram) {
        add(&view.streams_refused);
    }
}

/// The shard alone writes its counts.
fn add(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
