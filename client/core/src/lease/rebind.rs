//! A lease follows its client to a new address (§5.2).

use std::time::{Duration, Instant};

use lanrage_proto::frame::Cookie;
use lanrage_proto::frame::control::Message;

/// After the first, second, … sending; after the last the relay does not know the lease any more.
const PAUSES_MS: [u64; 4] = [100, 200, 400, 800];

/// REBIND or REBIND_ANSWER, until the relay says REBOUND.
#[derive(Debug)]
pub(crate) struct Rebind {
    cookie: Option<Cookie>,
    tries: usize,
    next_send: Instant,
}

impl Rebind {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { cookie: None, tries: 0, next_send: now }
    }

    pub(crate) const fn deadline(&self) -> Instant {
        self.next_send
    }

    pub(crate) const fn is_given_up(&self) -> bool {
        self.tries > PAUSES_MS.len()
    }

    /// The message that is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Message> {
        if now < self.next_send || self.is_given_up() {
            return None;
        }
        let pause = PAUSES_MS[self.tries.min(PAUSES_MS.len() - 1)];
        self.tries += 1;
        self.next_send = now + Duration::from_millis(pause);
        if self.is_given_up() {
            return None;
        }
        Some(self.cookie.map_or(Message::Rebind, Message::RebindAnswer))
    }

    /// Whether this challenge is the one to answer, at once: the first, since each address asked
    /// sends one.
    pub(crate) const fn handle_challenge(&mut self, cookie: Cookie, now: Instant) -> bool {
        if self.cookie.is_some() {
            return false;
        }
        self.cookie = Some(cookie);
        self.tries = 0;
        self.next_send = now;
        true
    }
}
