//! Round trips and losses over the last measurements.

use std::collections::VecDeque;
use std::time::Duration;

use crate::status::Quality;

/// Measurements remembered: 16 s of self-addressed frames while there is traffic.
const WINDOW: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Window {
    rtts: VecDeque<Duration>,
    /// One bit a measurement, the newest lowest; 1 is lost.
    lost: u64,
    measured: u32,
    /// Smoothed round trip and its mean deviation (RFC 6298 §2).
    smoothed: Option<(Duration, Duration)>,
}

impl Window {
    pub(crate) fn returned(&mut self, rtt: Duration) {
        self.lost <<= 1;
        self.measured = (self.measured + 1).min(WINDOW as u32);
        self.sample(rtt);
    }

    pub(crate) fn lost(&mut self) {
        self.lost = self.lost << 1 | 1;
        self.measured = (self.measured + 1).min(WINDOW as u32);
    }

    /// A round trip that was counted as lost before it came.
    pub(crate) fn sample(&mut self, rtt: Duration) {
        if self.rtts.len() == WINDOW {
            self.rtts.pop_front();
        }
        self.rtts.push_back(rtt);
        self.smoothed = Some(match self.smoothed {
            None => (rtt, rtt / 2),
            Some((smoothed, deviation)) => {
                let error = smoothed.abs_diff(rtt);
                ((smoothed * 7 + rtt) / 8, (deviation * 3 + error) / 4)
            }
        });
    }

    /// How long a round trip may take before something is wrong.
    pub(crate) fn patience(&self) -> Duration {
        self.smoothed.map_or(Duration::ZERO, |(rtt, deviation)| rtt * 2 + deviation * 4)
    }

    pub(crate) fn quality(&self) -> Quality {
        let mut sorted: Vec<_> = self.rtts.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len() - 1));
        let (rtt, rtt_p99) =
            if sorted.is_empty() { (None, None) } else { (at(50).copied(), at(99).copied()) };
        let differences = self.rtts.iter().zip(self.rtts.iter().skip(1));
        let sum: Duration = differences.map(|(one, next)| one.abs_diff(*next)).sum();
        let pairs = self.rtts.len().saturating_sub(1).max(1) as u32;
        let window = u64::MAX.checked_shr(64 - self.measured).unwrap_or(0);
        let lost = (self.lost & window).count_ones();
        let loss_permille = (lost * 1000 / self.measured.max(1)) as u16;
        Quality { rtt, rtt_p99, jitter: sum / pairs, loss_permille }
    }
}

const _: () = assert!(WINDOW == u64::BITS as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_median_and_jitter_come_from_the_window() {
        let mut window = Window::default();
        for turn in 0..64 {
            if turn % 4 == 0 {
                window.lost();
            } else {
                window.returned(Duration::from_millis(if turn % 2 == 0 { 20 } else { 30 }));
            }
        }
        let quality = window.quality();
        assert_eq!(quality.loss_permille, 250);
        assert_eq!(quality.rtt, Some(Duration::from_millis(30)));
        assert!(quality.jitter > Duration::from_millis(5), "{quality:?}");
        for _ in 0..64 {
            window.returned(Duration::from_millis(20));
        }
        assert_eq!(window.quality().loss_permille, 0);
        assert_eq!(window.quality().jitter, Duration::ZERO);
    }
}
