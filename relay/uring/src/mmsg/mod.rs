//! The back end of ppoll, recvmmsg and sendmmsg: for where io_uring is refused.

mod receive;
mod transmit;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::arrival::{Intake, Origin, span};
use crate::backend::Options;
use crate::counters::Counters;
use crate::gso::Gso;
use crate::handler::{Handler, Received};
use crate::queue::SendQueue;
use crate::sockets::{SocketId, Sockets};
use crate::tx::Tx;
use crate::waker::Waker;
use receive::Receiver;
pub(crate) use transmit::Transmitter;

/// Most arrivals a turn takes from one socket. What arrived first leaves when the batch does, 4 µs
/// an arrival later; system calls are 0.05 an arrival at this size and gain nothing beyond.
const BATCH_MAX: usize = 64;
/// And at first: twice as many each time a turn has taken all it could.
const BATCH_AT_FIRST: usize = 16;

/// A shard's sockets, driven by ppoll, recvmmsg and sendmmsg.
#[derive(Debug)]
pub struct Mmsg {
    receivers: Vec<Receiver>,
    arrivals: Vec<Arrival>,
    batch_max: usize,
    intake: Intake,
    queue: SendQueue,
    transmitter: Transmitter,
    /// The sockets in order, then the waker.
    polled: Box<[libc::pollfd]>,
    waker: Waker,
    counters: Arc<Counters>,
    sockets: Sockets,
}

/// An arrival of this turn; it stays in its receiver's buffer.
#[derive(Debug)]
struct Arrival {
    origin: Origin,
    slot: usize,
    len: usize,
}

impl Mmsg {
    /// Takes over a shard's sockets.
    ///
    /// # Errors
    ///
    /// The kernel has no memory or no file descriptor left.
    pub fn open(sockets: Sockets, options: &Options) -> io::Result<Self> {
        let counters = Arc::new(Counters::default());
        let waker = Waker::new()?;
        let batch_max = (options.buffers() / sockets.count()).clamp(1, BATCH_MAX);
        let receivers = sockets
            .descriptors()
            .map(|socket| Receiver::new(socket, batch_max.min(BATCH_AT_FIRST)))
            .collect::<io::Result<Vec<_>>>()?;
        counters.pool_buffers.set(receivers.iter().map(Receiver::batch).sum::<usize>() as u64);
        let gso = Gso::new(options.gso.clone(), sockets.gso_support());
        let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        Ok(Self {
            arrivals: Vec::with_capacity(batch_max * receivers.len()),
            batch_max,
            intake: Intake::new(&sockets, counters.clone())?,
            queue: SendQueue::new(options.sends(), gso, counters.clone())?,
            transmitter: Transmitter::new(sockets.descriptors().collect(), options.sends()),
            polled: sockets.descriptors().chain([waker.descriptor()]).map(poll).collect(),
            receivers,
            waker,
            counters,
            sockets,
        })
    }

    /// See [`crate::Backend::turn`].
    ///
    /// # Errors
    ///
    /// See [`crate::Backend::turn`].
    pub fn turn(&mut self, handler: &mut impl Handler, timeout: Duration) -> io::Result<()> {
        self.queue.begin_turn();
        let is_looked_at = self.intake.begin_turn(&self.sockets);
        if self.poll(timeout)? {
            if is_looked_at {
                self.tell_arrival(true);
            }
            let received = self.receive();
            if is_looked_at {
                self.tell_arrival(false);
            }
            received?;
        }
        self.intake.received(!self.arrivals.is_empty(), &self.sockets);
        self.dispatch(handler);
        self.transmitter.transmit(&mut self.queue);
        self.intake.submitted();
        Ok(())
    }

    /// See [`crate::Backend::drain`]: between turns nothing is received and nothing is queued.
    pub(crate) fn drain(&mut self, handler: &mut impl Handler) {
        self.intake.drained(&self.sockets);
        self.dispatch(handler);
        self.transmitter.transmit(&mut self.queue);
    }

    pub(crate) fn intake(&self) -> &Intake {
        &self.intake
    }

    pub(crate) fn intake_mut(&mut self) -> &mut Intake {
        &mut self.intake
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

    /// Waits; whether anything is ready.
    fn poll(&mut self, timeout: Duration) -> io::Result<bool> {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        self.counters.syscalls.add(1);
        // SAFETY: the kernel writes `revents` of the entries of a live slice, and reads a live
        // timespec; a null mask leaves the signals alone.
        let ready = unsafe {
            libc::ppoll(
                self.polled.as_mut_ptr(),
                self.polled.len() as libc::nfds_t,
                &raw const timeout,
                std::ptr::null(),
            )
        };
        if ready >= 0 {
            return Ok(ready > 0);
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) }
    }

    /// Takes one batch from each socket that is ready.
    fn receive(&mut self) -> io::Result<()> {
        let (sockets, waker) = self.polled.split_at(self.receivers.len());
        if waker[0].revents != 0 && self.waker.clear() {
            self.counters.wakeups.add(1);
        }
        let mut has_grown = false;
        for ((index, receiver), polled) in self.receivers.iter_mut().enumerate().zip(sockets) {
            if polled.revents == 0 {
                continue;
            }
            if polled.revents & libc::POLLNVAL != 0 {
                return Err(io::Error::from_raw_os_error(libc::EBADF));
            }
            // Nothing of the former batch is in the buffers any more.
            if receiver.was_filled() && receiver.batch() < self.batch_max {
                receiver.grow(self.batch_max);
                self.counters.pool_grown.add(1);
                has_grown = true;
            }
            self.counters.syscalls.add(1);
            match receiver.receive() {
                Ok(count) => {
                    for slot in 0..count {
                        let description = receiver.description(SocketId(index as u8), slot);
                        if let Some(origin) = self.intake.admit(&description) {
                            self.arrivals.push(Arrival { origin, slot, len: description.len });
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.counters.rx_errors.add(1),
            }
        }
        if has_grown {
            let buffers: usize = self.receivers.iter().map(Receiver::batch).sum();
            self.counters.pool_buffers.set(buffers as u64);
        }
        Ok(())
    }

    fn dispatch(&mut self, handler: &mut impl Handler) {
        for Arrival { origin, slot, len } in &self.arrivals {
            handler.prefetch(self.receivers[origin.socket.index()].payload(*slot, *len));
        }
        self.intake.batch(self.arrivals.len());
        for Arrival { origin, slot, len } in self.arrivals.drain(..) {
            let Origin { socket, source, segment_size } = origin;
            let bytes = self.receivers[socket.index()].payload(slot, len);
            let mut tx = Tx::new(&mut self.queue, &mut self.transmitter, span(bytes));
            handler.receive(Received { socket, source, bytes, segment_size }, &mut tx);
        }
        handler.batch_end(&mut Tx::new(&mut self.queue, &mut self.transmitter, 0..0));
    }
}
