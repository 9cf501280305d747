use std::time::{Duration, Instant};

/// After the first, second, … initiation: at 0, 250, 500 and 1,000 ms, then ever slower; the last
/// one repeats.
const PAUSES_MS: [u64; 7] = [250, 250, 500, 1000, 2000, 4000, 5000];
/// Tries at calling on a member that nothing is known of but that it exists.
const TRIES_UNWANTED: usize = 4;
/// An initiation that a member's own news provokes comes this long after the last one at least.
const PROVOKED_PAUSE: Duration = Duration::from_secs(1);

/// When to send handshake initiations.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    next: Option<Instant>,
    tries: usize,
    sent_at: Option<Instant>,
}

impl Handshake {
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.next
    }

    pub(crate) const fn is_under_way(&self) -> bool {
        self.next.is_some()
    }

    /// Begins at `at`, unless it is under way.
    pub(crate) fn want(&mut self, at: Instant) {
        if self.next.is_none() {
            self.next = Some(at);
            self.tries = 0;
        }
    }

    /// Begins again at once: a new path or a new epoch.
    pub(crate) const fn restart(&mut self, now: Instant) {
        self.next = Some(now);
        self.tries = 0;
    }

    /// Begins at once unless an initiation was sent a moment ago.
    pub(crate) fn provoke(&mut self, now: Instant) {
        if self.sent_at.is_none_or(|at| now >= at + PROVOKED_PAUSE) {
            self.want(now);
        }
    }

    /// There is no lease to send by.
    pub(crate) fn postpone(&mut self, until: Instant) {
        self.next = self.next.map(|at| at.max(until));
    }

    /// The handshake is complete, or nobody waits for it.
    pub(crate) const fn stop(&mut self) {
        self.next = None;
    }

    /// Whether an initiation is due; the next one follows by itself.
    pub(crate) fn handle_timeout(&mut self, is_wanted: bool, now: Instant) -> bool {
        if self.next.is_none_or(|at| now < at) {
            return false;
        }
        if !is_wanted && self.tries >= TRIES_UNWANTED {
            self.stop();
            return false;
        }
        let pause = PAUSES_MS[self.tries.min(PAUSES_MS.len() - 1)];
        self.tries += 1;
        self.sent_at = Some(now);
        self.next = Some(now + Duration::from_millis(pause));
        true
    }
}
