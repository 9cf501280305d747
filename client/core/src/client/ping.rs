use std::time::{Duration, Instant};

use lanrage_proto::inner::Message;
use lanrage_proto::{Member, RelayId};

use super::send::Way;
use super::{Client, PingError};
use crate::event::{Event, PingId};
use crate::outbox::Outbox;

const PINGS_MAX: usize = 64;
const PING_TIMEOUT: Duration = Duration::from_secs(5);

struct Ping {
    id: u64,
    member: Member,
    sent: Instant,
}

/// Pings under way, oldest first.
pub(super) struct Pings {
    under_way: Vec<Ping>,
    next_id: u64,
}

impl Pings {
    pub(super) const fn new(first_id: u64) -> Self {
        Self { under_way: Vec::new(), next_id: first_id }
    }

    /// For pings and for the echoes that measure paths.
    pub(super) const fn next_id(&mut self) -> u64 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.under_way.first().map(|ping| ping.sent + PING_TIMEOUT)
    }

    /// Gives up the pings whose time is over; whom they were for, and when they were sent.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        outbox: &mut Outbox,
    ) -> Vec<(Member, Instant)> {
        let late = self.under_way.extract_if(.., |ping| now >= ping.sent + PING_TIMEOUT);
        late.map(|Ping { id, member, sent }| {
            outbox.event(Event::Pong { id: PingId(id), member, answer: None });
            (member, sent)
        })
        .collect()
    }

    pub(super) fn handle_reply(
        &mut self,
        id: u64,
        (member, relay): (Member, RelayId),
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let fits = |ping: &Ping| ping.id == id && ping.member == member;
        if let Some(at) = self.under_way.iter().position(fits) {
            let ping = self.under_way.remove(at);
            let answer = Some((now.saturating_duration_since(ping.sent), relay));
            outbox.event(Event::Pong { id: PingId(id), member, answer });
        }
    }
}

impl Client {
    pub(super) fn send_ping(&mut self, member: Member, now: Instant) -> Result<PingId, PingError> {
        let Some(peer) = self.peers.get(&member) else {
            return Err(PingError::NoSuchMember(member));
        };
        if self.pings.under_way.len() == PINGS_MAX {
            return Err(PingError::TooMany);
        }
        let has_session = peer.tunnels.has_session();
        let id = self.pings.next_id();
        self.pings.under_way.push(Ping { id, member, sent: now });
        self.note_traffic(now);
        let message = Message::Echo { id };
        let result = if has_session {
            self.send_message(member, &message, Way::Everywhere, now)
        } else {
            let networks = &self.membership.networks;
            let ends = (networks.ipv4(self.membership.us), networks.ipv4(member));
            self.queue(member, &message.encode(ends.0, ends.1), now)
        };
        if let Err(reason) = result {
            self.outbox.drop(reason);
        }
        self.note_deadline(self.pings.deadline());
        Ok(PingId(id))
    }
}
