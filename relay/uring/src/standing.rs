//! A queue that stands in a socket's receive buffer, and how long the buffer should be because of it.
//!
//! A long buffer is there for bursts. When more comes than a shard can take, it only makes every
//! datagram late, and cold in the cache when its turn comes: as many are lost with a short one. As
//! CoDel does (RFC 8289 §3), a queue is told from a burst by its least age over a while; and it is
//! one that a shorter buffer mends only if the buffer overflows. (Not between any two samples: the
//! kernel gives back what was taken from a buffer in fourths of it, `udp_rmem_release` in
//! net/ipv4/udp.c.)

use std::time::{Duration, Instant};

/// A queue younger than this is a good one: CoDel's TARGET.
const TARGET: Duration = Duration::from_millis(5);
/// A queue older than the target for as long as this stands: CoDel's INTERVAL.
const INTERVAL: Duration = Duration::from_millis(100);
/// So many samples at least prove that it stands, or that it does no longer.
const SAMPLES: u32 = 4;
/// What a shortened buffer should hold.
const AIM: Duration = Duration::from_millis(2);
/// Bytes of the shortest buffer, as SO_RCVBUF counts them: some hundred datagrams of any driver's.
const SHORTEST: usize = 256 << 10;

/// The first datagram that a turn took from a socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) seen: Instant,
    /// How long it had waited.
    pub(crate) age: Duration,
    /// Datagrams that the full buffer has cost so far, modulo 2³² (SO_RXQ_OVFL).
    pub(crate) dropped: u32,
}

/// One socket's queue.
#[derive(Debug)]
pub(crate) struct Standing {
    full_len: usize,
    len: usize,
    dropped: u32,
    /// Samples in a row without an overflow since the one before.
    quiet: u32,
    old: Option<Old>,
}

/// A queue that was old at every sample since it overflowed.
#[derive(Debug)]
struct Old {
    since: Instant,
    samples: u32,
    least_age: Duration,
}

impl Standing {
    /// `full_len` is the length in bytes, as SO_RCVBUF counts them, that takes bursts.
    pub(crate) const fn new(full_len: usize) -> Self {
        Self { full_len, len: full_len, dropped: 0, quiet: 0, old: None }
    }

    /// How long the buffer should be from now on, if that changes.
    pub(crate) fn sampled(&mut self, sample: Sample) -> Option<usize> {
        let Sample { seen, age, dropped } = sample;
        let has_overflowed = std::mem::replace(&mut self.dropped, dropped) != dropped;
        self.quiet = if has_overflowed { 0 } else { self.quiet + 1 };
        if self.quiet >= SAMPLES {
            return self.gone();
        }
        if age < TARGET {
            self.old = None;
            return None;
        }
        if self.old.is_none() && !has_overflowed {
            return None;
        }
        let old = self.old.get_or_insert(Old { since: seen, samples: 0, least_age: age });
        old.samples += 1;
        old.least_age = old.least_age.min(age);
        if old.samples < SAMPLES || seen - old.since < INTERVAL {
            return None;
        }
        let aimed = self.len as u128 * AIM.as_nanos() / old.least_age.as_nanos();
        self.old = None;
        self.become_long((aimed as usize).max(SHORTEST).min(self.len))
    }

    /// Nothing waits. How long the buffer should be from now on, if that changes.
    pub(crate) fn gone(&mut self) -> Option<usize> {
        (self.old, self.quiet) = (None, 0);
        self.become_long(self.full_len)
    }

    pub(crate) const fn full_len(&self) -> usize {
        self.full_len
    }

    pub(crate) const fn is_short(&self) -> bool {
        self.len < self.full_len
    }

    fn become_long(&mut self, len: usize) -> Option<usize> {
        (std::mem::replace(&mut self.len, len) != len).then_some(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: usize = 8 << 20;
    const SPACING: Duration = Duration::from_millis(20);

    struct Scene {
        standing: Standing,
        now: Instant,
        dropped: u32,
    }

    impl Scene {
        fn new(full_len: usize) -> Self {
            Self { standing: Standing::new(full_len), now: Instant::now(), dropped: u32::MAX - 9 }
        }

        fn sample(&mut self, age_ms: u64, drops: u32, spacing: Duration) -> Option<usize> {
            self.now += spacing;
            self.dropped = self.dropped.wrapping_add(drops);
            let age = Duration::from_millis(age_ms);
            self.standing.sampled(Sample { seen: self.now, age, dropped: self.dropped })
        }

        /// Of samples with an overflow between them: what the buffer became, and at which.
        fn overflow(&mut self, ages_ms: &[u64]) -> Vec<(usize, usize)> {
            let lens = ages_ms.iter().map(|age| self.sample(*age, 1, SPACING));
            lens.enumerate().filter_map(|(at, len)| Some((at, len?))).collect()
        }
    }

    #[test]
    fn a_standing_queue_is_brought_to_what_is_aimed_at() {
        let mut scene = Scene::new(FULL);
        assert_eq!(scene.overflow(&[16; 6]), [(5, FULL / 8)]);
        assert_eq!(scene.overflow(&[2; 100]), [], "it is what it should be");
        assert!(scene.standing.is_short());
        assert_eq!(scene.overflow(&[6; 6]), [(5, FULL / 24)], "datagrams became smaller");
    }

    #[test]
    fn a_burst_changes_nothing() {
        let mut scene = Scene::new(FULL);
        for _ in 0..100 {
            assert_eq!(scene.overflow(&[40, 40, 40, 40, 40, 4]), []);
        }
        assert!(!scene.standing.is_short());
    }

    /// The kernel gives room back in fourths of the buffer.
    #[test]
    fn a_moment_without_an_overflow_changes_nothing() {
        let mut scene = Scene::new(FULL);
        scene.overflow(&[16; 2]);
        let lens: Vec<_> = [0, 0, 1, 1].map(|drops| scene.sample(16, drops, SPACING)).into();
        assert_eq!(lens, [None, None, None, Some(FULL / 8)]);
        for _ in 0..100 {
            let lens = [0, 0, 0, 1].map(|drops| scene.sample(2, drops, SPACING));
            assert_eq!(lens, [None; 4]);
        }
    }

    /// A thread that the scheduler holds up finds old datagrams in a buffer that has room.
    #[test]
    fn what_is_late_and_not_lost_changes_nothing() {
        let mut scene = Scene::new(FULL);
        for _ in 0..100 {
            assert_eq!(scene.sample(40, 0, SPACING), None);
        }
    }

    #[test]
    fn few_samples_prove_nothing_and_one_that_stands_out_does_not_count() {
        let mut scene = Scene::new(FULL);
        let seldom = 2 * INTERVAL;
        let lens: Vec<_> = (0..4).map(|_| scene.sample(16, 1, seldom)).collect();
        assert_eq!(lens, [None, None, None, Some(FULL / 8)]);
        let mut scene = Scene::new(FULL);
        assert_eq!(scene.overflow(&[16, 16, 16, 200, 16, 900]), [(5, FULL / 8)]);
    }

    #[test]
    fn the_buffer_is_never_too_short_nor_longer_than_it_was() {
        let mut scene = Scene::new(FULL);
        assert_eq!(scene.overflow(&[10_000; 20]), [(5, SHORTEST)]);
        let mut small = Scene::new(SHORTEST / 2);
        assert_eq!(small.overflow(&[10_000; 20]), []);
    }

    #[test]
    fn it_is_full_again_when_nothing_stands() {
        let ends: [fn(&mut Scene) -> Option<usize>; 2] = [
            |scene| scene.standing.gone(),
            |scene| (0..SAMPLES).find_map(|_| scene.sample(2, 0, SPACING)),
        ];
        for end in ends {
            let mut scene = Scene::new(FULL);
            assert_eq!(end(&mut scene), None);
            assert_ne!(scene.overflow(&[16; 6]), []);
            assert_eq!(end(&mut scene), Some(FULL));
            assert_eq!(end(&mut scene), None);
        }
    }
}
