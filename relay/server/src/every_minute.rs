use std::time::Duration;

use tokio::time::Instant;

const PERIOD: Duration = Duration::from_secs(60);

/// Has what lasts said when it begins, and then once a minute.
#[derive(Debug, Default)]
pub(crate) struct EveryMinute {
    said_at: Option<Instant>,
}

impl EveryMinute {
    /// Whether to say it; saying it is taken for granted.
    pub(crate) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.said_at.is_none_or(|at| now.duration_since(at) >= PERIOD);
        if is_due {
            self.said_at = Some(now);
        }
        is_due
    }

    /// It is over; whether it was ever said.
    pub(crate) fn end(&mut self) -> bool {
        self.said_at.take().is_some()
    }
}
