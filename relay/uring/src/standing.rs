//! A queue that stands in a socket's receive buffer, and how long the buffer should be because of it.
//!
//! A long buffer is there for bursts. When more comes than a shard can take, it only makes every
//! datagram late, and cold in the cache when its turn comes: what is dropped is the same. A queue is
//! told from a burst by its age over a while, as CoDel does (RFC 8289 §3.2).

use std::time::{Duration, Instant};

/// A queue younger than this is a good one (RFC 8289 §4.4).
const TARGET: Duration = Duration::from_millis(5);
/// A queue older than the target for as long as this stands (RFC 8289 §4.3).
const INTERVAL: Duration = Duration::from_millis(100);
/// How much a shortened buffer should hold.
const AIM: Duration = Duration::from_millis(2);
/// A queue younger than this stands no longer.
const GONE: Duration = Duration::from_millis(1);
/// The shortest buffer, in bytes as SO_RCVBUF counts them: a turn's worth of small datagrams.
const SHORTEST: usize = 256 << 10;

/// One socket's queue.
#[derive(Debug)]
pub(crate) struct Standing {
    full: usize,
    now: usize,
    /// Since when every sample was above the target.
    above_since: Option<Instant>,
}

impl Standing {
    /// `full` is the length in bytes, as SO_RCVBUF counts them, of a buffer whose queue does not stand.
    pub(crate) const fn new(full: usize) -> Self {
        Self { full, now: full, above_since: None }
    }

    /// A datagram seen at `now` had waited for `age`. What the buffer should be from now on, if that
    /// changes.
    pub(crate) fn sampled(&mut self, now: Instant, age: Duration) -> Option<usize> {
        if age < GONE {
            return self.gone();
        }
        if age < TARGET {
            self.above_since = None;
            return None;
        }
        let since = *self.above_since.get_or_insert(now);
        if now - since < INTERVAL {
            return None;
        }
        self.above_since = None;
        let aimed = self.now as u128 * AIM.as_nanos() / age.as_nanos();
        self.become_length((aimed as usize).max(SHORTEST).min(self.now))
    }

    /// Nothing waits, or the socket goes to another process. What the buffer should be from now on, if
    /// that changes.
    pub(crate) fn gone(&mut self) -> Option<usize> {
        self.above_since = None;
        self.become_length(self.full)
    }

    pub(crate) const fn is_short(&self) -> bool {
        self.now < self.full
    }

    fn become_length(&mut self, bytes: usize) -> Option<usize> {
        (std::mem::replace(&mut self.now, bytes) != bytes).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: usize = 8 << 20;

    /// Samples every `ms` of `age_ms`, for `samples`; what the buffer became, and at which sample.
    fn samples(standing: &mut Standing, age_ms: u64, samples: u64) -> Vec<(u64, usize)> {
        let begin = Instant::now();
        let at = |sample| begin + Duration::from_millis(20 * sample);
        (0..samples)
            .filter_map(|sample| {
                let length = standing.sampled(at(sample), Duration::from_millis(age_ms))?;
                Some((sample, length))
            })
            .collect()
    }

    #[test]
    fn a_burst_changes_nothing() {
        let mut standing = Standing::new(FULL);
        for _ in 0..100 {
            assert_eq!(samples(&mut standing, 40, 5), []);
            assert_eq!(samples(&mut standing, 4, 1), []);
        }
        assert!(!standing.is_short());
    }

    #[test]
    fn a_standing_queue_is_brought_to_what_is_aimed_at() {
        let mut standing = Standing::new(FULL);
        assert_eq!(samples(&mut standing, 16, 6), [(5, FULL / 8)]);
        assert_eq!(samples(&mut standing, 2, 100), [], "it is what it should be");
        assert!(standing.is_short());
        assert_eq!(samples(&mut standing, 6, 6), [(5, FULL / 24)], "trains shrank");
    }

    #[test]
    fn the_buffer_is_never_shorter_than_a_turn_nor_longer_than_it_was() {
        let mut standing = Standing::new(FULL);
        assert_eq!(samples(&mut standing, 10_000, 20), [(5, SHORTEST)]);
        let mut small = Standing::new(SHORTEST / 2);
        assert_eq!(samples(&mut small, 10_000, 20), []);
    }

    #[test]
    fn it_is_full_again_when_nothing_stands() {
        for empty in [
            |s: &mut Standing| s.gone(),
            |s: &mut Standing| samples(s, 0, 1).pop().map(|(_, length)| length),
        ] {
            let mut standing = Standing::new(FULL);
            assert_eq!(empty(&mut standing), None);
            samples(&mut standing, 16, 6);
            assert_eq!(empty(&mut standing), Some(FULL));
            assert_eq!(empty(&mut standing), None);
        }
    }
}
