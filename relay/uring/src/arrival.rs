//! What both back ends make of the kernel's description of an arrival.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::counters::Counters;
use crate::handler::segments;
use crate::sockets::{BufferOption, SocketId, Sockets};
use crate::standing::{Sample, Standing};
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
    sources: Box<[Source]>,
    sampler: Sampler,
    /// The sockets went to another process, which may have changed their buffers.
    was_drained: bool,
    counters: Arc<Counters>,
}

/// One socket.
#[derive(Debug)]
struct Source {
    /// Its SO_RXQ_OVFL count when last seen.
    dropped: u32,
    /// `None` where the length of its buffer is not ours to change.
    buffer: Option<Buffer>,
    wants_sample: bool,
}

#[derive(Debug)]
struct Buffer {
    queue: Standing,
    option: BufferOption,
    /// Its bytes from now on.
    resized: Option<usize>,
}

/// One turn in so many is looked at with a clock.
pub const SAMPLE_EVERY: u32 = 64;

/// Which turns are looked at, and what of them is still to be seen.
#[derive(Debug, Default)]
struct Sampler {
    turns: u32,
    is_looking: bool,
    seen: Option<Instant>,
}

impl Intake {
    /// # Errors
    ///
    /// What getsockopt says of a socket.
    pub(crate) fn new(sockets: &Sockets, counters: Arc<Counters>) -> io::Result<Self> {
        let source = |(id, _)| {
            let full_len = sockets.buffer_sizes(id)?.0;
            let buffer = sockets.receive_buffer_option(id, full_len).map(|option| Buffer {
                queue: Standing::new(full_len),
                option,
                resized: None,
            });
            Ok(Source { dropped: 0, buffer, wants_sample: false })
        };
        let sources = sockets.locals().map(source).collect::<io::Result<_>>()?;
        Ok(Self { sources, sampler: Sampler::default(), was_drained: false, counters })
    }

    /// A turn begins; whether it is to be looked at.
    pub(crate) fn begin_turn(&mut self, sockets: &Sockets) -> bool {
        if std::mem::take(&mut self.was_drained) {
            self.lengthen_all(sockets);
        }
        self.sampler.turns = (self.sampler.turns + 1) % SAMPLE_EVERY;
        self.sampler.is_looking = self.sampler.turns == 0;
        self.sampler.seen = None;
        if self.sampler.is_looking {
            self.sources.iter_mut().for_each(|source| source.wants_sample = true);
        }
        self.sampler.is_looking
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
        let seen = Instant::now();
        self.sampler.seen.get_or_insert(seen);
        // By the clock of the kernel's stamps; one that was set back tells nothing.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let age = now.zip(arrived).and_then(|(now, arrived)| now.checked_sub(arrived));
        let Some(age) = age else { return };
        self.counters.queue_age.record(age);
        let Source { dropped, buffer, .. } = &mut self.sources[socket.index()];
        if let Some(Buffer { queue, resized, .. }) = buffer {
            *resized = queue.sampled(Sample { seen, age, dropped: *dropped });
        }
    }

    /// The turn's receives are over; whether they brought `anything`.
    pub(crate) fn received(&mut self, anything: bool, sockets: &Sockets) {
        if !self.sampler.is_looking && anything {
            return;
        }
        for (source, (id, _)) in self.sources.iter_mut().zip(sockets.locals()) {
            let Some(Buffer { queue, option, resized }) = &mut source.buffer else { continue };
            let emptied = if anything { None } else { queue.gone() };
            let Some(bytes) = emptied.or(resized.take()) else { continue };
            self.counters.syscalls.add(1);
            let is_set = sockets.set_receive_buffer(id, *option, bytes).is_ok();
            self.counters.queues_shortened.add(u64::from(is_set && queue.is_short()));
        }
    }

    /// The sockets go to another process: their buffers are to take what comes meanwhile.
    pub(crate) fn drained(&mut self, sockets: &Sockets) {
        self.was_drained = true;
        self.lengthen_all(sockets);
    }

    fn lengthen_all(&mut self, sockets: &Sockets) {
        for (source, (id, _)) in self.sources.iter_mut().zip(sockets.locals()) {
            let Some(Buffer { queue, option, .. }) = &mut source.buffer else { continue };
            queue.gone();
            self.counters.syscalls.add(1);
            // It was permitted a moment ago, when the option was chosen.
            let _ = sockets.set_receive_buffer(id, *option, queue.full_len());
        }
    }

    /// `None`: dropped, and counted as such.
    pub(crate) fn admit(&mut self, description: &Description<'_>) -> Option<Origin> {
        let Description { socket, len, .. } = *description;
        let control = control::parse(description.control);
        let source = &mut self.sources[socket.index()];
        if let Some(dropped) = control.dropped {
            let last = std::mem::replace(&mut source.dropped, dropped);
            self.counters.rx_kernel_drops.add(u64::from(dropped.wrapping_sub(last)));
        }
        if description.truncated {
            self.counters.rx_truncated.add(1);
            return None;
        }
        if self.sampler.is_looking && std::mem::take(&mut self.sources[socket.index()].wants_sample)
        {
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
    pub(crate) fn overflows(&self) -> Vec<u32> {
        self.sources.iter().map(|source| source.dropped).collect()
    }

    /// Goes on from what an earlier owner of the sockets last saw. What was admitted before this call
    /// was counted from zero.
    pub(crate) fn resume(&mut self, overflows: &[u32]) {
        for (Source { dropped: last, .. }, before) in self.sources.iter_mut().zip(overflows) {
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
