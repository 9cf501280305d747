use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_LATER: Duration = Duration::from_secs(1);
/// Sendings in haste; 20 lost in a row at 20 % loss each way: 10^-9.
const HASTY: u32 = 20;
const SENDINGS_MAX: u32 = 30;

/// A message that is repeated until it is acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notice {
    next: Instant,
    sendings: u32,
}

impl Notice {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { next: now, sendings: 0 }
    }

    pub(crate) const fn deadline(&self) -> Instant {
        self.next
    }

    pub(crate) const fn is_given_up(&self) -> bool {
        self.sendings >= SENDINGS_MAX
    }

    /// Whether it is to be sent.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        if now < self.next || self.is_given_up() {
            return false;
        }
        self.sendings += 1;
        self.next = now + if self.sendings < HASTY { PAUSE } else { PAUSE_LATER };
        true
    }
}
