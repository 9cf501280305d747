//! What both back ends make of the kernel's description of an arrival.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::counters::Counters;
use crate::handler::segments;
use crate::sockets::{SocketId, Sockets};
use crate::standing::Standing;
use crate::{address, control};

/// Bytes of the largest UDP payload, or GRO train: an IP packet's length is 16 bits.
pub(crate) const MAX_PAYLOAD: usize = 65_535;

/// An arrival as the kernel describes it.
#[derive(Debug)]
pub(crate) struct Description<'a> {
    pub(crate) socket: SocketId,
    pub(crate) name: &'a [u8],
    pub(crate) control: &'a [u8],
    /// MSG_TRUNC: the payload did not fit.
    pub(crate) truncated: bool,
    pub(crate) len: usize,
}

/// Where an arrival came from, and the shape of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) socket: SocketId,
    pub(crate) source: SocketAddr,
    pub(crate) segment_size: usize,
}

/// Checks and counts arrivals.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Each socket's SO_RXQ_OVFL count when last seen.
    dropped: Box<[u32]>,
    queues: Box<[Standing]>,
    /// Which receive buffer should have how many bytes from now on.
    resized: Option<(SocketId, usize)>,
    sampler: Sampler,
    counters: Arc<Counters>,
}

/// One turn in so many is looked at with a clock.
pub const SAMPLE_EVERY: u32 = 64;

/// Which turns are looked at, and what of them is still to be seen.
#[derive(Debug, Default)]
struct Sampler {
    turns: u32,
    wants_age: bool,
    seen: Option<Instant>,
}

impl Intake {
    /// # Errors
    ///
    /// What getsockopt says of a socket.
    pub(crate) fn new(sockets: &Sockets, counters: Arc<Counters>) -> io::Result<Self> {
        let queue = |(id, _)| Ok(Standing::new(sockets.buffer_sizes(id)?.0));
        Ok(Self {
            dropped: vec![0; sockets.count()].into(),
            queues: sockets.locals().map(queue).collect::<io::Result<_>>()?,
            resized: None,
            sampler: Sampler::default(),
            counters,
        })
    }

    /// A turn begins; whether it is to be looked at.
    pub(crate) fn begin_turn(&mut self) -> bool {
        self.sampler.turns = (self.sampler.turns + 1) % SAMPLE_EVERY;
        self.sampler.wants_age = self.sampler.turns == 0;
        self.sampler.seen = None;
        self.sampler.wants_age
    }

    /// The turn's batch has been submitted.
    pub(crate) fn submitted(&mut self) {
        if let Some(seen) = self.sampler.seen.take() {
            self.counters.forward_latency.record(seen.elapsed());
        }
    }

    /// The turn is looked at: its batch should be submitted at once.
    pub(crate) fn is_sampled(&self) -> bool {
        self.sampler.seen.is_some()
    }

    fn sample(&mut self, socket: SocketId, arrived: Option<Duration>) {
        self.sampler.wants_age = false;
        let seen = Instant::now();
        self.sampler.seen = Some(seen);
        // By the clock of the kernel's stamps; one that was set back tells nothing.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        if let Some(age) = now.zip(arrived).and_then(|(now, arrived)| now.checked_sub(arrived)) {
            self.counters.queue_age.record(age);
            let bytes = self.queues[socket.index()].sampled(seen, age);
            self.resized = bytes.map(|bytes| (socket, bytes));
        }
    }

    /// The turn's receives are over.
    pub(crate) fn received(&mut self, sockets: &Sockets) {
        if let Some((socket, bytes)) = self.resized.take() {
            self.resize(sockets, socket, bytes);
        }
    }

    /// Nothing waits in any socket, or they go to another process: their buffers are to take a burst.
    pub(crate) fn nothing_waits(&mut self, sockets: &Sockets) {
        for (socket, _) in sockets.locals() {
            if let Some(bytes) = self.queues[socket.index()].gone() {
                self.resize(sockets, socket, bytes);
            }
        }
    }

    fn resize(&self, sockets: &Sockets, socket: SocketId, bytes: usize) {
        self.counters.syscalls.add(1);
        // It was permitted when the socket was bound.
        let _ = sockets.set_receive_buffer(socket, bytes);
        if self.queues[socket.index()].is_short() {
            self.counters.queues_shortened.add(1);
        }
    }

    /// `None`: dropped, and counted as such.
    pub(crate) fn admit(&mut self, description: &Description<'_>) -> Option<Origin> {
        let Description { socket, len, .. } = *description;
        let control = control::parse(description.control);
        if let Some(dropped) = control.dropped {
            let last = std::mem::replace(&mut self.dropped[socket.index()], dropped);
            self.counters.rx_kernel_drops.add(u64::from(dropped.wrapping_sub(last)));
        }
        if description.truncated {
            self.counters.rx_truncated.add(1);
            return None;
        }
        if self.sampler.wants_age {
            self.sample(socket, control.arrived);
        }
        let Some(source) = address::parse(description.name) else {
            self.malformed();
            return None;
        };
        let segment_size = control.segment_size.unwrap_or(len).min(len);
        let segments = segments(len, segment_size);
        self.counters.rx_arrivals.add(1);
        self.counters.rx_segments.add(segments as u64);
        self.counters.rx_bytes.add(len as u64);
        self.counters.train_lengths.record(segments);
        Some(Origin { socket, source, segment_size })
    }

    /// Each socket's SO_RXQ_OVFL count when last seen.
    pub(crate) fn overflows(&self) -> &[u32] {
        &self.dropped
    }

    /// Goes on from what an earlier owner of the sockets last saw. What was admitted before this call
    /// was counted from zero.
    pub(crate) fn resume(&mut self, overflows: &[u32]) {
        for (last, before) in self.dropped.iter_mut().zip(overflows) {
            if *last == 0 {
                *last = *before;
            } else {
                self.counters.rx_kernel_drops.add(u64::from(*before).wrapping_neg());
            }
        }
    }

    /// Counts an arrival whose description makes no sense.
    pub(crate) fn malformed(&self) {
        self.counters.rx_malformed.add(1);
    }

    /// Counts a turn's batch.
    pub(crate) fn batch(&self, arrivals: usize) {
        if arrivals > 0 {
            self.counters.batches.add(1);
            self.counters.batch_sizes.record(arrivals);
        }
    }
}

/// The addresses a slice occupies.
pub(crate) fn span(bytes: &[u8]) -> Range<usize> {
    let start = bytes.as_ptr().addr();
    start..start + bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::RawAddress;
    use crate::sockets::{SocketOptions, bind};

    fn drops(total: u32) -> Vec<u8> {
        let mut bytes = 20usize.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
        bytes.extend_from_slice(&libc::SO_RXQ_OVFL.to_ne_bytes());
        bytes.extend_from_slice(&total.to_ne_bytes());
        bytes.resize(24, 0);
        bytes
    }

    #[test]
    fn kernel_drops_are_deltas_modulo_32_bits() {
        let counters = Arc::new(Counters::default());
        let local = "127.0.0.1:0".parse().unwrap();
        let sockets = bind(&[local], 1, &SocketOptions::default()).unwrap().remove(0);
        let mut intake = Intake::new(&sockets, counters.clone()).unwrap();
        let name = RawAddress::new("192.0.2.1:5".parse().unwrap());
        // SAFETY: a RawAddress holds `len` initialised bytes.
        let name =
            unsafe { std::slice::from_raw_parts(name.as_ptr().cast::<u8>(), name.len() as usize) };
        for (total, expected) in
            [(7, 7), (7, 7), (u32::MAX, u64::from(u32::MAX)), (4, u64::from(u32::MAX) + 5)]
        {
            let control = drops(total);
            let description = Description {
                socket: SocketId(0),
                name,
                control: &control,
                truncated: false,
                len: 3,
            };
            assert!(intake.admit(&description).is_some());
            assert_eq!(counters.rx_kernel_drops.get(), expected);
        }
    }
}
