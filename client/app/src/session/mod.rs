//! The client's side of the control service. All of it may fail for hours: play goes on.

mod connections;
mod control;
mod link;

pub use control::{Control, random_bytes};
pub use link::{ControlEvent, ControlLink};

use std::time::Duration;

use lanrage_control_client::Error;
use rustix::time::{ClockId, clock_gettime};

/// Waits between attempts: from half a second, doubling to 30 s, each drawn between nothing and
/// that ("full jitter": clients that lost control together do not come back together).
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);

    /// The next wait.
    pub(crate) fn wait(&mut self) -> Duration {
        let bound = Self::FIRST.saturating_mul(1 << self.failures.min(6)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(random_fraction())
    }

    /// It worked.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }
}

/// What went wrong, without the link to its manual that rustls ends some errors with.
pub(crate) fn brief(error: &Error) -> String {
    let text = error.to_string();
    text.split(": https://").next().map_or_else(String::new, str::to_owned)
}

/// Since the machine booted, asleep or awake.
pub(crate) fn boot_time() -> Duration {
    time_of(ClockId::Boottime)
}

/// Since the machine booted, without the time it slept: what [`std::time::Instant`] counts.
pub(crate) fn awake_time() -> Duration {
    time_of(ClockId::Monotonic)
}

fn time_of(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().expect("these clocks begin at 0")
}

/// Uniform in [0, 1).
pub(crate) fn random_fraction() -> f64 {
    // 53 bits: what a double's mantissa holds.
    let bits = u64::from_le_bytes(random_bytes()) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_carry_no_link_to_a_manual() {
        let endpoint = "lan.example:443".to_owned();
        let link = "closed without close_notify: https://docs.rs/rustls/x#unexpected-eof";
        let error = Error::Broken { endpoint, reason: link.to_owned() };
        assert!(brief(&error).ends_with("closed without close_notify"), "{}", brief(&error));
    }

    #[test]
    fn backoff_grows_to_its_bound_and_is_jittered() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..200).map(|_| backoff.wait()).collect();
        assert!(waits[0] < Duration::from_millis(500));
        assert!(waits.iter().all(|wait| *wait < Duration::from_secs(30)));
        let late = &waits[10..];
        assert!(late.iter().any(|wait| *wait > Duration::from_secs(20)));
        assert!(late.iter().any(|wait| *wait < Duration::from_secs(10)));
        backoff.reset();
        assert!(backoff.wait() < Duration::from_millis(500));
    }
}
