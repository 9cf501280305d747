use std::time::{Duration, Instant};

use lanrage_proto::Member;
use lanrage_proto::frame::data::HEADER_LEN;
use lanrage_proto::inner::Message;

use super::Client;
use super::send::Way;
use crate::counters::DropReason;
use crate::peer::{Notice, Peer};

/// Without a lease a handshake waits for one, which starts it over.
const NO_LEASE_PAUSE: Duration = Duration::from_secs(5);

impl Client {
    /// Runs every timer that is due and finds the next one.
    pub(super) fn run_timers(&mut self, now: Instant) {
        self.with_leases(now, |leases, around| leases.handle_timeout(around));
        let is_due = |peer: &&Peer| peer.deadline().is_some_and(|at| now >= at);
        let due: Vec<_> = self.peers.values().filter(is_due).map(|peer| peer.member).collect();
        for member in due {
            self.run_peer_timers(member, now);
        }
        for (member, sent) in self.pings.handle_timeout(now, &mut self.outbox) {
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.note_unanswered(sent);
            }
        }
        self.expire_held(now);
        let peers = self.peers.values().filter_map(Peer::deadline).min();
        let held = self.held.iter().map(|held| held.until).min();
        self.deadline = None;
        for at in [self.leases.deadline(), peers, self.pings.deadline(), held] {
            self.note_deadline(at);
        }
    }

    fn expire_held(&mut self, now: Instant) {
        let before = self.held.len();
        self.held.retain(|held| now < held.until);
        for _ in self.held.len()..before {
            self.outbox.drop(DropReason::UnknownMember);
        }
    }

    fn run_peer_timers(&mut self, member: Member, now: Instant) {
        self.expire_queue(member, now);
        self.tick_tunnel(member, now);
        self.echo(member, now);
        self.initiate(member, now);
        self.repeat_notices(member, now);
    }

    fn expire_queue(&mut self, member: Member, now: Instant) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        while let Some(packet) = peer.queue.pop_expired(now) {
            self.outbox.drop(DropReason::QueueTimeout);
            self.outbox.recycle(packet);
        }
    }

    fn tick_tunnel(&mut self, member: Member, now: Instant) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let mut frame = self.outbox.buffer();
        match peer.tunnels.handle_timeout(&mut frame[HEADER_LEN..], now) {
            Some(length) => {
                frame.truncate(HEADER_LEN + length);
                self.send_everywhere(member, frame);
            }
            None => self.outbox.recycle(frame),
        }
    }

    /// Sends the handshake initiation that is due, by every lease.
    fn initiate(&mut self, member: Member, now: Instant) {
        let is_online = self.membership.member(member).is_some_and(|known| known.record.online);
        let Some(peer) = self.peers.get_mut(&member) else { return };
        if self.leases.states().is_empty() {
            return peer.handshake.postpone(now + NO_LEASE_PAUSE);
        }
        let is_wanted = is_online || !peer.queue.is_empty() || peer.is_active(now);
        if !peer.handshake.handle_timeout(is_wanted, now) {
            return;
        }
        let is_behind = peer.epoch_notice.is_some();
        let slot = peer.tunnels.for_handshake(is_behind);
        let mut frame = self.outbox.buffer();
        match slot.tunnel.initiate(&mut frame[HEADER_LEN..]) {
            Ok(length) => {
                frame.truncate(HEADER_LEN + length);
                peer.tunnels.wake(now);
                self.outbox.counters.initiations += 1;
                self.send_everywhere(member, frame);
            }
            Err(_) => self.outbox.recycle(frame),
        }
    }

    /// Measures the way to the peer while packets cross, and notices when it has lost its session.
    fn echo(&mut self, member: Member, now: Instant) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let is_active = peer.is_active(now);
        if !peer.echoes.handle_timeout(is_active, now) {
            return;
        }
        if !peer.tunnels.has_session() {
            return peer.echoes.pause();
        }
        let way = if peer.echoes.is_first() { Way::Everywhere } else { Way::Chosen };
        let id = self.pings.next_id();
        let is_long_due = peer.echoes.is_heard() && peer.size.handle_echo();
        if peer.note_echo(id, now) {
            peer.handshake.provoke(now);
        }
        if let Err(reason) = self.send_message(member, &Message::Echo { id }, way, now) {
            self.outbox.drop(reason);
        }
        if is_long_due {
            self.send_long_echo(member, now);
        }
    }

    /// Repeats LEASES and NEW_EPOCH until they are acknowledged.
    fn repeat_notices(&mut self, member: Member, now: Instant) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let has_session = peer.tunnels.has_session();
        let leases_due = is_due(&mut peer.leases_notice, has_session, now);
        let epoch_due = is_due(&mut peer.epoch_notice, has_session, now);
        if leases_due {
            let sequence = self.announcement.sequence;
            let leases = self.announcement.leases.clone();
            self.send_notice(member, &Message::Leases { sequence, leases }, now);
        }
        let epoch_due = epoch_due && self.membership.may_be_told(member);
        if let (true, Some(news)) = (epoch_due, &self.epoch_news) {
            let record = Box::new(news.record);
            let message = Message::NewEpoch { record, secret: news.secret };
            self.send_notice(member, &message, now);
        }
    }

    fn send_notice(&mut self, member: Member, message: &Message<'_>, now: Instant) {
        if let Err(reason) = self.send_message(member, message, Way::Everywhere, now) {
            self.outbox.drop(reason);
        }
    }
}

/// Whether to send it; forgets one that was repeated too often or has no session to go by.
fn is_due(notice: &mut Option<Notice>, has_session: bool, now: Instant) -> bool {
    if !has_session || notice.as_ref().is_some_and(Notice::is_given_up) {
        *notice = None;
    }
    notice.as_mut().is_some_and(|notice| notice.handle_timeout(now))
}
