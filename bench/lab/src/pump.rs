//! The thread that carries one direction of a user-space link from TAP to TAP.

use std::{
    num::NonZeroU64,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
    process::setpriority_process,
    thread::set_current_timer_slack,
};

use crate::{
    Error,
    wire::{Frame, Wire},
};

/// Frames read before those that are due are sent.
const READ_BATCH: usize = 64;

/// Idle buffers kept for use again.
const SPARE_FRAMES_MAX: usize = 1_024;

/// Ahead of the programs under test, so that a busy machine does not lengthen the link.
const NICE: i32 = -15;

/// How long to leave a TAP alone that cannot be read because its interface is down.
const DOWN_BACKOFF: Duration = Duration::from_millis(10);

/// A running direction; [`Pump::stop`] ends its thread and lets go of the TAPs.
#[derive(Debug)]
pub(crate) struct Pump {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    wire: Mutex<Wire>,
    stop: AtomicBool,
    /// Written when the wire changed or the thread is to stop.
    wake: OwnedFd,
}

impl Pump {
    /// Carries frames of at most `frame_max` bytes from `ingress` to `egress`, both non-blocking.
    pub(crate) fn start(
        name: &str,
        wire: Wire,
        frame_max: usize,
        ingress: Arc<OwnedFd>,
        egress: Arc<OwnedFd>,
    ) -> Result<Self, Error> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(Error::io("make an eventfd"))?;
        let shared =
            Arc::new(Shared { wire: Mutex::new(wire), stop: AtomicBool::new(false), wake });
        let thread = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name(format!("wire {name}"))
                .spawn(move || shared.run(frame_max, &ingress, &egress))
                .map_err(Error::io("start a link thread"))?
        };
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    pub(crate) fn wire(&self) -> MutexGuard<'_, Wire> {
        self.shared.wire()
    }

    /// Makes the thread look at the wire again.
    pub(crate) fn wake(&self) {
        // Full means a wake-up is pending already.
        let _full = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }

    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, frame_max: usize, ingress: &OwnedFd, egress: &OwnedFd) {
        // Both only sharpen timing; a kernel that refuses leaves the defaults.
        let _default_nice = setpriority_process(None, NICE);
        let _default_slack = set_current_timer_slack(NonZeroU64::new(1));
        let mut spare = Vec::new();
        let mut batch = Vec::with_capacity(READ_BATCH);
        while !self.stop.load(Ordering::Acquire) {
            let timeout = self.send_due(egress, &mut spare);
            let readable = self.wait(ingress, timeout);
            if readable {
                match read_batch(ingress, frame_max, &mut spare, &mut batch) {
                    Ok(()) => self.offer(&mut batch, &mut spare),
                    // The device is gone, with its namespace (tun_chr_read_iter: no tun).
                    Err(Errno::BADFD) => return,
                    // The interface is down (tun_ring_recv: RCV_SHUTDOWN).
                    Err(_) => thread::sleep(DOWN_BACKOFF),
                }
            }
        }
    }

    /// Sends what is due; returns the time until the next frame.
    fn send_due(&self, egress: &OwnedFd, spare: &mut Vec<Frame>) -> Option<Duration> {
        let mut wire = self.wire();
        let mut now = Instant::now();
        loop {
            while let Some(frame) = wire.poll_transmit(now) {
                match rustix::io::write(egress, frame.bytes()) {
                    Ok(len) => {
                        wire.counters.delivered_frames += 1;
                        wire.counters.delivered_bytes += len as u64;
                    }
                    Err(_) => wire.counters.refused_frames += 1,
                }
                keep(spare, frame);
            }
            let next = wire.poll_timeout()?;
            now = Instant::now();
            if next > now {
                return Some(next - now);
            }
        }
    }

    fn wait(&self, ingress: &OwnedFd, timeout: Option<Duration>) -> bool {
        let timeout = timeout.map(|timeout| Timespec {
            // A wire's delays are hours at most.
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut fds = [PollFd::new(ingress, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return false;
        }
        let [ingress, wake] = fds.map(|fd| !fd.revents().is_empty());
        if wake {
            let _empty = rustix::io::read(&self.wake, &mut [0; 8]);
        }
        ingress
    }

    fn offer(&self, batch: &mut Vec<Frame>, spare: &mut Vec<Frame>) {
        let mut wire = self.wire();
        let now = Instant::now();
        for frame in batch.drain(..) {
            if let Some(dropped) = wire.offer(now, frame) {
                keep(spare, dropped);
            }
        }
    }
}

fn read_batch(
    ingress: &OwnedFd,
    frame_max: usize,
    spare: &mut Vec<Frame>,
    batch: &mut Vec<Frame>,
) -> Result<(), Errno> {
    while batch.len() < READ_BATCH {
        let mut frame = spare.pop().unwrap_or_else(|| Frame::with_capacity(frame_max));
        match rustix::io::read(ingress, frame.buffer_mut()) {
            Ok(len) => {
                frame.set_len(len);
                batch.push(frame);
            }
            Err(errno) => {
                keep(spare, frame);
                // What was read first is handed on; a lasting error comes back.
                let handed_on = errno == Errno::AGAIN || !batch.is_empty();
                return if handed_on { Ok(()) } else { Err(errno) };
            }
        }
    }
    Ok(())
}

fn keep(spare: &mut Vec<Frame>, frame: Frame) {
    if spare.len() < SPARE_FRAMES_MAX {
        spare.push(frame);
    }
}
