//! One shard: a pinned thread that receives, asks the core, and sends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

use lanrage_proto::frame::data::HEADER_LEN;
use lanrage_proto::frame::mesh::GROWTH;
use lanrage_relay_core::shard::{DELIVERED, RUN_SEGMENTS_MAX};
use lanrage_relay_core::{Class, Shard, Verdict, runs};
use lanrage_relay_table::{Endpoint, LocalId};
use lanrage_relay_uring::{Backend, Handler, Received, SocketId, Tx};

use crate::clock::Clock;
use crate::mesh::Subscription;
use crate::published::ShardView;
use crate::queues::{Item, Queues};

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
    pub(crate) clock: Clock,
    pub(crate) view: Arc<ShardView>,
    pub(crate) mesh: Subscription,
    pub(crate) pass: Pass,
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
        let wait = if relayer.core.is_backlogged() { Duration::ZERO } else { TURN_MAX };
        backend.turn(relayer, wait)?;
    }
    // Submits what the last turn has queued.
    backend.turn(relayer, Duration::ZERO)
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
                    tx.send(self.socket(to), address(to), answer.as_bytes());
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
            tx.send(self.sockets[usize::from(to.local.0)], address(to), bytes);
        }
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

    fn forward(&self, tx: &mut Tx<'_>, to: Endpoint, run: &[u8], segment_size: Option<u16>) {
        tx.forward(self.socket(to), address(to), run, segment_size);
    }

    /// Sends the run on to another relay, every segment behind its longer header.
    fn cross(&self, tx: &mut Tx<'_>, to: Endpoint, run: &[u8], segment_size: usize) {
        let mut pieces = [&[][..]; 2 * RUN_SEGMENTS_MAX];
        let segments = run.chunks(segment_size);
        let used = 2 * segments.len();
        for (pair, (header, segment)) in
            pieces.chunks_exact_mut(2).zip(self.core.mesh_headers().iter().zip(segments))
        {
            (pair[0], pair[1]) = (header, &segment[HEADER_LEN..]);
        }
        let size = (segment_size + GROWTH) as u16;
        tx.forward_gathered(self.socket(to), address(to), &pieces[..used], size);
    }

    fn copy(&self, tx: &mut Tx<'_>, frame: &[u8]) {
        for to in self.core.targets() {
            tx.forward(self.socket(*to), address(*to), frame, None);
        }
    }

    fn socket(&self, to: Endpoint) -> SocketId {
        self.sockets[usize::from(to.local.0)]
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

/// Where an endpoint is, in the family of its socket.
pub(crate) fn address(to: Endpoint) -> SocketAddr {
    SocketAddr::new(to.ip.to_canonical(), to.port)
}

#[cfg(test)]
mod tests;
