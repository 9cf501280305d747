//! The io_uring back end.

mod buffers;
mod engine;
mod pools;
mod ring;
mod user_data;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::arrival::{Intake, span};
use crate::backend::Options;
use crate::counters::Counters;
use crate::gso::Gso;
use crate::handler::{Handler, Received};
use crate::probe::Refusal;
use crate::queue::SendQueue;
use crate::sockets::Sockets;
use crate::tx::{Flush as _, Tx};
use crate::waker::Waker;
use engine::Engine;

/// A shard's sockets, driven by one ring: a multishot receive a socket into a shared buffer ring,
/// and one `enter` a turn that submits the former batch's sends and waits for arrivals.
#[derive(Debug)]
pub struct Uring {
    /// Dropped before what its operations refer to.
    engine: Engine,
    queue: SendQueue,
    waker: Waker,
    counters: Arc<Counters>,
    sockets: Sockets,
}

impl Uring {
    /// Takes over a shard's sockets and starts receiving. To be called on the thread that will take
    /// the turns: the ring is that thread's alone.
    ///
    /// # Errors
    ///
    /// Which step the kernel refused, and what to do about it.
    pub fn open(sockets: Sockets, options: &Options) -> Result<Self, Refusal> {
        let counters = Arc::new(Counters::default());
        let waker = Waker::new().map_err(|error| Refusal::new("eventfd", error))?;
        let gso = Gso::new(options.gso.clone(), sockets.gso_support());
        let mut queue = SendQueue::new(options.sends(), gso, counters.clone())
            .map_err(|error| Refusal::new("mmap", error))?;
        let intake = Intake::new(&sockets, counters.clone())
            .map_err(|error| Refusal::new("getsockopt", error))?;
        let engine = Engine::new(&sockets, waker.clone(), intake, &mut queue, options)?;
        Ok(Self { engine, queue, waker, counters, sockets })
    }

    /// See [`crate::Backend::turn`].
    ///
    /// # Errors
    ///
    /// See [`crate::Backend::turn`].
    pub fn turn(&mut self, handler: &mut impl Handler, timeout: Duration) -> io::Result<()> {
        self.queue.begin_turn();
        let is_looked_at = self.engine.intake.begin_turn(&self.sockets);
        if is_looked_at {
            self.tell_arrival(true);
        }
        let waited = self.engine.wait(&mut self.queue, timeout);
        if is_looked_at {
            self.tell_arrival(false);
        }
        waited?;
        self.engine.intake.received(!self.engine.arrivals.is_empty(), &self.sockets);
        self.dispatch(handler);
        if self.engine.intake.is_sampled() {
            self.engine.flush(&mut self.queue);
            self.engine.intake.submitted();
        }
        Ok(())
    }

    /// See [`crate::Backend::drain`].
    pub(crate) fn drain(&mut self, handler: &mut impl Handler) -> io::Result<()> {
        self.queue.begin_turn();
        self.engine.intake.drained(&self.sockets);
        self.engine.quiesce(&mut self.queue)?;
        // Without a receive under way a flush adds nothing.
        self.dispatch(handler);
        self.engine.submit_all(&mut self.queue)
    }

    pub(crate) fn intake(&self) -> &Intake {
        &self.engine.intake
    }

    pub(crate) fn intake_mut(&mut self) -> &mut Intake {
        &mut self.engine.intake
    }

    fn tell_arrival(&self, is_told: bool) {
        self.counters.syscalls.add(self.sockets.count() as u64);
        self.sockets.tell_arrival(is_told);
    }

    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    fn dispatch(&mut self, handler: &mut impl Handler) {
        // A full queue is flushed on the way, which may add arrivals: those are the next batch.
        let batch = self.engine.arrivals.len();
        self.engine.intake.batch(batch);
        for arrival in &self.engine.arrivals {
            handler.prefetch(arrival.payload());
        }
        for _ in 0..batch {
            let Some(mut arrival) = self.engine.arrivals.pop_front() else { break };
            let origin = arrival.origin;
            let bytes = arrival.payload_mut();
            let mut tx = Tx::new(&mut self.queue, &mut self.engine, span(bytes));
            let received = Received {
                socket: origin.socket,
                source: origin.source,
                bytes,
                segment_size: origin.segment_size,
            };
            handler.receive(received, &mut tx);
            if tx.forwarded() {
                self.engine.held.push(arrival.into_buffer());
            }
        }
        handler.batch_end(&mut Tx::new(&mut self.queue, &mut self.engine, 0..0));
    }
}
