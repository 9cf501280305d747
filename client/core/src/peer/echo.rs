use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::quality::Window;

/// Between echoes while packets cross.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same while one is unanswered.
const INTERVAL_DOUBT: Duration = Duration::from_millis(250);
/// An answer that comes later is lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// Unanswered echoes in a row, with nothing else heard, that make a path doubtful.
const DOUBTFUL: u32 = 2;
/// The same to suspect that the peer has lost its session.
const SILENT: u32 = 6;

/// Echoes that measure the way through a tunnel and back while it is in use.
#[derive(Debug, Default)]
pub(crate) struct Echoes {
    outstanding: VecDeque<(u64, Instant)>,
    next: Option<Instant>,
    /// The first after a pause goes by every path, so that the peer starts to watch its leases.
    is_first: bool,
    unheard: u32,
    pub(crate) window: Window,
}

impl Echoes {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let lost = self.outstanding.front().map(|(_, sent)| *sent + PATIENCE);
        self.next.into_iter().chain(lost).min()
    }

    /// Packets begin to cross: the first echo is due at once.
    pub(crate) const fn wake(&mut self, now: Instant) {
        self.next = Some(now);
        self.is_first = true;
    }

    /// There is no session to echo through.
    pub(crate) const fn pause(&mut self) {
        self.next = None;
    }

    pub(crate) const fn is_first(&self) -> bool {
        self.is_first
    }

    /// Counts lost echoes; whether the next one is due.
    pub(crate) fn handle_timeout(&mut self, is_active: bool, now: Instant) -> bool {
        while self.outstanding.front().is_some_and(|(_, sent)| now >= *sent + PATIENCE) {
            self.outstanding.pop_front();
            self.window.lost();
        }
        if !is_active {
            self.next = None;
            self.unheard = 0;
            return false;
        }
        self.next.is_some_and(|at| now >= at)
    }

    pub(crate) fn sent(&mut self, id: u64, now: Instant) {
        self.outstanding.push_back((id, now));
        self.unheard += 1;
        self.is_first = false;
        let interval = if self.unheard > 1 { INTERVAL_DOUBT } else { INTERVAL };
        self.next = Some(now + interval);
    }

    /// Whether the echo was one of ours.
    pub(crate) fn handle_reply(&mut self, id: u64, now: Instant) -> bool {
        let at = self.outstanding.iter().position(|(sent, _)| *sent == id);
        let Some((_, sent)) = at.and_then(|at| self.outstanding.remove(at)) else { return false };
        self.window.returned(now.saturating_duration_since(sent));
        true
    }

    /// Anything authentic came from the peer.
    pub(crate) const fn heard(&mut self) {
        self.unheard = 0;
    }

    /// Whether the peer was heard since the last echo.
    pub(crate) const fn is_heard(&self) -> bool {
        self.unheard == 0
    }

    pub(crate) const fn is_doubtful(&self) -> bool {
        self.unheard > DOUBTFUL
    }

    /// Whether the peer seems to have lost its session: every [`SILENT`] echoes.
    pub(crate) const fn is_silent(&self) -> bool {
        self.unheard > 0 && self.unheard.is_multiple_of(SILENT)
    }
}
