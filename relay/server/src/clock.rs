use std::time::{SystemTime, UNIX_EPOCH};

use lanrage_proto::frame::mesh::Moment;
use lanrage_relay_core::Now;
use rustix::time::{ClockId, clock_gettime};

/// The relay's clocks; all threads, and all processes that follow one another, count from the same
/// start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin_ns: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin_ns: monotonic_ns() }
    }

    /// The clock of the process before; a start in the future is now.
    pub(crate) fn since(origin_ns: u64) -> Self {
        Self { origin_ns: origin_ns.min(monotonic_ns()) }
    }

    /// CLOCK_MONOTONIC at the relay's start, the same in every process of this host.
    pub(crate) const fn origin_ns(self) -> u64 {
        self.origin_ns
    }

    /// Milliseconds since the relay's start.
    pub(crate) fn ms(self) -> u64 {
        (monotonic_ns() - self.origin_ns) / 1_000_000
    }

    pub(crate) fn now(self) -> Now {
        Now { ms: self.ms(), unix_s: unix_s() }
    }
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Seconds since 1970; 0 while the system's clock is before that.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The time between relays; the beginning of 1970 while the system's clock is before that.
pub(crate) fn moment() -> Moment {
    Moment::new(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()))
}
