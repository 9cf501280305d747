//! What members say to each other inside their tunnels (§9).

use std::time::{Duration, Instant};

use lanrage_proto::inner::Message;
use lanrage_proto::signed::KickRecord;
use lanrage_proto::{Epoch, Member, PartySecret, RelayId};

use super::Client;
use super::send::Way;
use crate::counters::DropReason;
use crate::event::Event;

/// Where a message's IPv4 source and destination addresses stand (RFC 791 §3.1).
const ADDRESSES: std::ops::Range<usize> = 12..20;
/// When both ends may begin a handshake, the one with the higher number waits for this.
const HIGHER_NUMBER_WAITS: Duration = Duration::from_millis(500);

impl Client {
    pub(super) fn receive_message(
        &mut self,
        member: Member,
        relay: RelayId,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let networks = &self.membership.networks;
        let ends = [networks.ipv4(member).octets(), networks.ipv4(self.membership.us).octets()];
        if packet.get(ADDRESSES) != Some(ends.as_flattened()) {
            return Err(DropReason::InnerMalformed);
        }
        let message = Message::decode(packet).map_err(|_| DropReason::InnerMalformed)?;
        let peer = self.peers.get_mut(&member).ok_or(DropReason::UnknownMember)?;
        match message {
            Message::Echo { id } => {
                self.send_message(member, &Message::EchoReply { id }, Way::Chosen, now)
            }
            Message::EchoReply { id } => {
                if !peer.size.handle_reply(id) && !peer.echoes.handle_reply(id, now) {
                    self.pings.handle_reply(id, (member, relay), now, &mut self.outbox);
                }
                Ok(())
            }
            Message::Leases { sequence, leases } => {
                peer.note_announced(sequence, leases);
                self.send_message(member, &Message::LeasesAck { sequence }, Way::Chosen, now)
            }
            Message::LeasesAck { sequence } => {
                peer.leases_acked = Some(sequence);
                if sequence == self.announcement.sequence {
                    peer.leases_notice = None;
                }
                Ok(())
            }
            Message::NewEpoch { record, secret } => {
                self.receive_new_epoch(member, &record, &secret, now)
            }
            Message::NewEpochAck { epoch } => {
                self.note_in_epoch(member, epoch, now);
                Ok(())
            }
            Message::Fragment { id, index, count, piece } => {
                let whole = peer.reassembly.handle(id, (index, count), piece, now);
                match whole.map_err(|_| DropReason::Fragment)? {
                    Some(packet) => self.deliver(member, packet, now),
                    None => Ok(()),
                }
            }
        }
    }

    fn receive_new_epoch(
        &mut self,
        member: Member,
        record: &KickRecord,
        secret: &PartySecret,
        now: Instant,
    ) -> Result<(), DropReason> {
        let was_behind = self.membership.is_behind();
        let keys = &self.credentials.relay_map;
        let result = self.membership.handle_new_epoch(member, record, secret, keys);
        if !was_behind && self.membership.is_behind() {
            self.outbox.event(Event::PartyWanted);
        }
        if self.peers.keys().any(|peer| self.membership.member(*peer).is_none()) {
            self.follow_members(now);
        }
        if let Some(new) = result.map_err(|_| DropReason::BadEpoch)? {
            self.begin_epoch(&new, now);
            if !self.membership.knows_all_kicks() {
                self.outbox.event(Event::PartyWanted);
            }
        }
        let epoch = self.membership.epoch();
        self.send_message(member, &Message::NewEpochAck { epoch }, Way::Everywhere, now)?;
        self.note_in_epoch(member, epoch, now);
        Ok(())
    }

    /// The member has our epoch's secret: a handshake can succeed. One that is in a later epoch has
    /// no use for ours.
    fn note_in_epoch(&mut self, member: Member, epoch: Epoch, now: Instant) {
        let us = self.membership.us;
        let Some(peer) = self.peers.get_mut(&member) else { return };
        if epoch < peer.epoch() {
            return;
        }
        peer.epoch_notice = None;
        if epoch == peer.epoch() && !peer.tunnels.is_current_up() {
            let wait = if us < member { Duration::ZERO } else { HIGHER_NUMBER_WAITS };
            peer.handshake.want(now + wait);
        }
        self.note_deadline_of(member);
    }
}
