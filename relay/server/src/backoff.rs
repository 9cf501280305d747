use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Waits between attempts: exponential with full jitter, so that a fleet does not come back at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    ceiling: Duration,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { ceiling: FIRST }
    }

    /// The next wait, given a random number.
    pub(crate) fn next(&mut self, random: u32) -> Duration {
        let wait = self.ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.ceiling = (self.ceiling * 2).min(LONGEST);
        wait
    }

    /// Waits before the next attempt.
    pub(crate) async fn wait(&mut self) {
        // Without randomness the longest wait is as good as any.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        tokio::time::sleep(self.next(random)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_half_a_minute() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..9).map(|_| backoff.next(u32::MAX).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert_eq!(backoff.next(0), Duration::ZERO);
    }
}
