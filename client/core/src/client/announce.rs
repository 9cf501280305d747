use std::time::Instant;

use lanrage_proto::inner::{LeaseState, Message};
use lanrage_proto::{Member, RelayId};

use super::Client;
use super::send::Way;
use crate::peer::Notice;

/// What LEASES says at present.
pub(super) struct Announcement {
    pub(super) sequence: u32,
    pub(super) leases: Vec<(RelayId, LeaseState)>,
}

impl Announcement {
    /// Control's clock starts the sequence, so that a restarted client counts on.
    pub(super) const fn new(unix_time: u64) -> Self {
        Self { sequence: unix_time as u32, leases: Vec::new() }
    }
}

impl Client {
    /// When the leases' states have changed, tells every member with a session; that a lease is
    /// suspect concerns only those with traffic. A new lease starts handshakes over.
    pub(super) fn announce_changes(&mut self, now: Instant) {
        let states = self.leases.states();
        if states == self.announcement.leases {
            return;
        }
        let before = std::mem::replace(&mut self.announcement.leases, states.to_vec());
        self.announcement.sequence = self.announcement.sequence.wrapping_add(1);
        let concerns_all = !before.iter().map(usable).eq(states.iter().map(usable));
        let is_new = |(relay, _): &(RelayId, _)| !before.iter().any(|(known, _)| known == relay);
        let gained = states.iter().any(is_new);
        for peer in self.peers.values_mut() {
            if gained && peer.handshake.is_under_way() {
                peer.handshake.restart(now);
            }
            let concerned = concerns_all || peer.is_active(now);
            if concerned && peer.tunnels.has_session() {
                peer.leases_notice = Some(Notice::new(now));
            }
            let deadline = peer.deadline();
            self.deadline = [self.deadline, deadline].into_iter().flatten().min();
        }
    }

    /// Tells every member with a session, once, that no lease is left: nobody will be here to
    /// repeat it. Whom it does not reach finds out when packets stay without an answer.
    pub(super) fn announce_end(&mut self, now: Instant) {
        let sequence = self.announcement.sequence.wrapping_add(1);
        let with_session = self.peers.values().filter(|peer| peer.tunnels.has_session());
        let members: Vec<Member> = with_session.map(|peer| peer.member).collect();
        for member in members {
            let message = Message::Leases { sequence, leases: Vec::new() };
            if let Err(reason) = self.send_message(member, &message, Way::Everywhere, now) {
                self.outbox.drop(reason);
            }
        }
    }
}

/// A lease as members without traffic care about it.
fn usable((relay, state): &(RelayId, LeaseState)) -> (RelayId, bool) {
    (*relay, *state != LeaseState::Dead)
}
