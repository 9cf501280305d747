use std::time::{Instant, SystemTime, UNIX_EPOCH};

use lanrage_proto::frame::mesh::Moment;
use lanrage_relay_core::Now;

/// The relay's clocks; all threads count from the same start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Milliseconds since the relay's start.
    pub(crate) fn ms(self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    pub(crate) fn now(self) -> Now {
        Now { ms: self.ms(), unix_s: unix_s() }
    }
}

/// Seconds since 1970; 0 while the system's clock is before that.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The time between relays; the beginning of 1970 while the system's clock is before that.
pub(crate) fn moment() -> Moment {
    Moment::new(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()))
}
