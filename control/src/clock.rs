use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The service's time, which tests can move forward.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    ahead_s: Arc<AtomicU64>,
    set_s: Arc<AtomicU64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { started: Instant::now(), ahead_s: Arc::default(), set_s: Arc::default() }
    }
}

impl Clock {
    /// Seconds since 1970: for everything signed or stored.
    pub fn now(&self) -> u64 {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        system + self.ahead_s.load(Ordering::Relaxed) + self.set_s.load(Ordering::Relaxed)
    }

    /// Seconds since the start, whatever happens to the system's clock: for whether a peer is
    /// alive.
    pub(crate) fn uptime_s(&self) -> u64 {
        self.started.elapsed().as_secs() + self.ahead_s.load(Ordering::Relaxed)
    }

    /// Sets the time of day forward, as an operator may.
    pub fn set_forward(&self, by: Duration) {
        self.set_s.fetch_add(by.as_secs(), Ordering::Relaxed);
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        self.ahead_s.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}
