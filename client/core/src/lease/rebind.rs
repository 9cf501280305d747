//! A lease follows its client to a new address (§5.2).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lanrage_proto::frame::Cookie;
use lanrage_proto::frame::control::Message;

/// After the first, second, … sending; after the last the relay does not know the lease any more.
const PAUSES_MS: [u64; 4] = [100, 200, 400, 800];

/// REBIND or REBIND_ANSWER, until the relay says REBOUND.
#[derive(Debug)]
pub(crate) struct Rebind {
    way: Way,
    /// Who has challenged.
    challenger: Option<(SocketAddr, Cookie)>,
    tries: usize,
    next_send: Instant,
}

/// Where a lease may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To whichever address answers first: where it is now may be lost.
    Any,
    /// To a UDP address, from a stream that works and is used until the relay says REBOUND.
    Udp,
}

impl Rebind {
    pub(crate) const fn new(way: Way, now: Instant) -> Self {
        Self { way, challenger: None, tries: 0, next_send: now }
    }

    pub(crate) const fn way(&self) -> Way {
        self.way
    }

    /// Where the answer goes.
    pub(crate) fn challenger(&self) -> Option<SocketAddr> {
        self.challenger.map(|(address, _)| address)
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
        let cookie = self.challenger.map(|(_, cookie)| cookie);
        Some(cookie.map_or(Message::Rebind, Message::RebindAnswer))
    }

    /// Whether this challenge is the one to answer, at once: the first, since each address asked
    /// sends one.
    pub(crate) const fn handle_challenge(
        &mut self,
        source: SocketAddr,
        cookie: Cookie,
        now: Instant,
    ) -> bool {
        if self.challenger.is_some() {
            return false;
        }
        self.challenger = Some((source, cookie));
        self.tries = 0;
        self.next_send = now;
        true
    }
}
