use std::time::Duration;

use crate::session::{awake_time, boot_time};

/// Notices that the machine slept: CLOCK_MONOTONIC, which timers run on, stands still meanwhile and
/// CLOCK_BOOTTIME does not (clock_gettime(2)).
pub(super) struct SleepWatch {
    /// Time asleep since the machine booted.
    asleep: Duration,
}

/// The two clocks are not read at the same moment.
const SLEEP_MIN: Duration = Duration::from_secs(1);

impl SleepWatch {
    pub(super) fn new() -> Self {
        Self { asleep: asleep() }
    }

    /// How long the machine has slept since this was last asked, if it has.
    pub(super) fn slept(&mut self) -> Option<Duration> {
        self.note(asleep())
    }

    fn note(&mut self, asleep: Duration) -> Option<Duration> {
        let slept = asleep.saturating_sub(self.asleep);
        if slept < SLEEP_MIN {
            return None;
        }
        self.asleep = asleep;
        Some(slept)
    }
}

fn asleep() -> Duration {
    let awake = awake_time();
    boot_time().saturating_sub(awake)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_is_told_once_and_jitter_is_none() {
        let mut watch = SleepWatch { asleep: Duration::from_secs(100) };
        let after = |millis| Duration::from_secs(100) + Duration::from_millis(millis);
        assert_eq!(watch.note(after(3)), None);
        assert_eq!(watch.note(Duration::from_secs(99)), None);
        assert_eq!(watch.note(after(3_600_000)), Some(Duration::from_secs(3600)));
        assert_eq!(watch.note(after(3_600_002)), None);
        assert_eq!(SleepWatch::new().slept(), None, "nobody sleeps here");
    }
}
