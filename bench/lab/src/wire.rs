//! One direction of a shaped link, as a schedule of frames: `now` in, frames out.
//!
//! ```text
//!   offer ─► loss ─► queue (bytes, tail drop) ─► line (bit/s) ─► delay ± jitter ─► poll_transmit
//! ```

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::Error;

/// Bytes one direction may hold in delay and queue together: 250 ms at 2 Gbit/s.
const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;

/// No path is longer, and sums of times stay far from overflow.
const DELAY_MAX: Duration = Duration::from_secs(3_600);

/// The queue a rate gets when none is given: 100 ms of it, and at least 32 KiB.
const QUEUE_TIME: Duration = Duration::from_millis(100);
const QUEUE_BYTES_MIN: usize = 32 << 10;

/// A direction of a link, seen from the host that hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the host to the network.
    Up,
    /// From the network to the host.
    Down,
}

/// Whether jitter may let a frame overtake an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    #[default]
    Keep,
    Free,
}

/// What one direction of a link does to frames.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Impairment {
    /// One-way delay, after the frame has left the line.
    pub delay: Duration,
    /// Each frame's delay is uniform in `delay ± jitter`, never below 0.
    pub jitter: Duration,
    pub order: Order,
    /// Probability, 0.0 to 1.0, that a frame is lost before it reaches the queue.
    pub loss: f64,
    /// Line rate in bits of Ethernet frame per second; `None` is unlimited.
    pub rate_bps: Option<u64>,
    /// Bytes that may wait for the line; more are dropped. `None`: 100 ms of the rate. Only used
    /// with a rate.
    pub queue_bytes: Option<usize>,
}

impl Impairment {
    /// A perfect line.
    pub const NONE: Self = Self {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        order: Order::Keep,
        loss: 0.0,
        rate_bps: None,
        queue_bytes: None,
    };

    /// A cable pulled out: everything offered is lost.
    pub const CUT: Self = Self { loss: 1.0, ..Self::NONE };

    /// # Errors
    ///
    /// [`Error::BadLoss`], [`Error::BadDelay`] and [`Error::ZeroRate`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !(0.0..=1.0).contains(&self.loss) {
            return Err(Error::BadLoss(self.loss));
        }
        if self.delay.max(self.jitter) > DELAY_MAX {
            return Err(Error::BadDelay(self.delay.max(self.jitter)));
        }
        if self.rate_bps == Some(0) {
            return Err(Error::ZeroRate);
        }
        Ok(())
    }

    fn queue_limit(&self, rate_bps: u64) -> usize {
        self.queue_bytes.unwrap_or_else(|| {
            let bytes = QUEUE_TIME.as_secs_f64() * rate_bps as f64 / 8.0;
            (bytes as usize).max(QUEUE_BYTES_MIN)
        })
    }
}

/// What one direction has counted since the link was made.
///
/// `received = delivered + lost + overflowed + refused +` what is still in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Ethernet frames offered by the sending side.
    pub received_frames: u64,
    pub received_bytes: u64,
    /// Those of `received_frames` that carry UDP over IPv4 or IPv6 (each fragment counts).
    pub received_udp_frames: u64,
    pub delivered_frames: u64,
    pub delivered_bytes: u64,
    /// Frames taken by random loss or a cut.
    pub lost_frames: u64,
    /// Frames the full queue dropped.
    pub overflowed_frames: u64,
    /// Frames the receiving interface would not take (it was down).
    pub refused_frames: u64,
}

/// An Ethernet frame in a buffer that is used again.
#[derive(Debug)]
pub(crate) struct Frame {
    buffer: Box<[u8]>,
    len: usize,
}

impl Frame {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { buffer: vec![0; capacity].into_boxed_slice(), len: 0 }
    }

    pub(crate) fn buffer_mut(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    pub(crate) fn set_len(&mut self, len: usize) {
        self.len = len.min(self.buffer.len());
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    fn is_udp(&self) -> bool {
        const UDP: u8 = 17;
        match self.bytes() {
            [_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x00, ip @ ..] => ip.get(9) == Some(&UDP),
            [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, ip @ ..] => ip.get(6) == Some(&UDP),
            _ => false,
        }
    }
}

#[derive(Debug)]
struct Scheduled {
    due: Instant,
    sequence: u64,
    /// When the frame's last bit leaves the line; until then a new rate still applies to it.
    sent: Instant,
    frame: Frame,
}

/// The schedule of one direction.
///
/// **Call [`Wire::offer`] for each frame read, then [`Wire::poll_transmit`] until `None`, then
/// sleep until [`Wire::poll_timeout`] or the next frame.**
#[derive(Debug)]
pub(crate) struct Wire {
    impairment: Impairment,
    random: ChaCha8Rng,
    /// When the line has sent all it was given.
    line_free: Instant,
    /// The latest due time given out; [`Order::Keep`] never goes below it.
    last_due: Instant,
    next_sequence: u64,
    in_flight_bytes: usize,
    scheduled: BinaryHeap<Reverse<Scheduled>>,
    pub(crate) counters: Counters,
}

impl Wire {
    pub(crate) fn new(impairment: Impairment, seed: u64, now: Instant) -> Self {
        Self {
            impairment,
            random: ChaCha8Rng::seed_from_u64(seed),
            line_free: now,
            last_due: now,
            next_sequence: 0,
            in_flight_bytes: 0,
            scheduled: BinaryHeap::new(),
            counters: Counters::default(),
        }
    }

    /// Changes the line. Frames still waiting for it are planned anew; those on their way are not.
    pub(crate) fn set(&mut self, now: Instant, impairment: Impairment) {
        self.impairment = impairment;
        self.line_free = now;
        let (mut waiting, on_their_way): (Vec<_>, Vec<_>) = self
            .scheduled
            .drain()
            .map(|Reverse(scheduled)| scheduled)
            .partition(|scheduled| scheduled.sent > now);
        self.last_due = on_their_way.iter().map(|s| s.due).max().unwrap_or(now);
        self.scheduled.extend(on_their_way.into_iter().map(Reverse));
        waiting.sort_unstable_by_key(|scheduled| scheduled.sequence);
        for Scheduled { sequence, frame, .. } in waiting {
            self.schedule(now, sequence, frame);
        }
    }

    /// Takes a frame, or gives it back when it is dropped.
    pub(crate) fn offer(&mut self, now: Instant, frame: Frame) -> Option<Frame> {
        let len = frame.bytes().len();
        self.counters.received_frames += 1;
        self.counters.received_bytes += len as u64;
        self.counters.received_udp_frames += u64::from(frame.is_udp());
        if self.loses() {
            self.counters.lost_frames += 1;
            return Some(frame);
        }
        if self.overflows(now, len) {
            self.counters.overflowed_frames += 1;
            return Some(frame);
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.in_flight_bytes += len;
        self.schedule(now, sequence, frame);
        None
    }

    /// The next frame that is due.
    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<Frame> {
        if self.poll_timeout()? > now {
            return None;
        }
        let Reverse(Scheduled { frame, .. }) = self.scheduled.pop()?;
        self.in_flight_bytes -= frame.bytes().len();
        Some(frame)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.scheduled.peek().map(|Reverse(next)| next.due)
    }

    fn schedule(&mut self, now: Instant, sequence: u64, frame: Frame) {
        let sent = match self.impairment.rate_bps {
            None => now,
            Some(rate) => {
                let bits = frame.bytes().len() as f64 * 8.0;
                self.line_free.max(now) + Duration::from_secs_f64(bits / rate as f64)
            }
        };
        self.line_free = sent;
        let mut due = sent + self.delay();
        if self.impairment.order == Order::Keep {
            due = due.max(self.last_due);
        }
        self.last_due = self.last_due.max(due);
        self.scheduled.push(Reverse(Scheduled { due, sequence, sent, frame }));
    }

    fn loses(&mut self) -> bool {
        self.impairment.loss > 0.0 && self.uniform() < self.impairment.loss
    }

    fn overflows(&self, now: Instant, len: usize) -> bool {
        if self.in_flight_bytes + len > IN_FLIGHT_BYTES_MAX {
            return true;
        }
        let Some(rate) = self.impairment.rate_bps else {
            return false;
        };
        let waiting = self.line_free.saturating_duration_since(now).as_secs_f64() * rate as f64;
        waiting / 8.0 + len as f64 > self.impairment.queue_limit(rate) as f64
    }

    fn delay(&mut self) -> Duration {
        let Impairment { delay, jitter, .. } = self.impairment;
        if jitter.is_zero() {
            return delay;
        }
        (delay + jitter.mul_f64(2.0 * self.uniform())).saturating_sub(jitter)
    }

    /// Uniform in [0, 1): the 53 bits an `f64` holds.
    fn uniform(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scheduled {}

#[cfg(test)]
mod tests;
