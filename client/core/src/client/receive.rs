//! From the network to the NIC.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lanrage_proto::datagram;
use lanrage_proto::frame::data::{Delivered, HEADER_LEN, SelfProbe, payload};
use lanrage_proto::inner;
use lanrage_proto::{Destination, Member, RelayId};

use super::Client;
use super::query::HEARD_RECENTLY;
use super::send::drop_reason;
use crate::counters::DropReason;
use crate::event::Event;
use crate::nic::packet::IpPacket;
use crate::nic::{NIC_MTU, filter, mss};
use crate::paths::Path;
use crate::peer::{Notice, Peer};
use crate::tunnel::{self, Kind, Received, Refused};

/// How long an initiation waits for its sender's entry.
const HELD_LIFETIME: Duration = Duration::from_secs(2);
/// Initiations held, one a member.
const HELD_MAX: usize = 16;

/// A handshake initiation from a member that is not yet known.
pub(super) struct Held {
    pub(super) member: Member,
    path: Path,
    datagram: Vec<u8>,
    pub(super) until: Instant,
}

impl Client {
    pub(super) fn receive(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let kind = datagram::kind(datagram);
        if kind == datagram::Kind::Data {
            return self.receive_data(source, datagram, now);
        }
        if kind != datagram::Kind::Hint {
            return self
                .with_leases(now, |leases, around| leases.handle(kind, source, datagram, around));
        }
        let absent =
            self.with_leases(now, |leases, around| leases.handle_hint(source, datagram, around))?;
        if let Some((path, member)) = absent {
            let peer = self.peers.get_mut(&member).ok_or(DropReason::Hint)?;
            peer.note_absent(path, now);
        }
        Ok(())
    }

    fn receive_data(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let lease = self.leases.by_source(source).ok_or(DropReason::UnknownSource)?;
        let relay = lease.relay();
        let (frame, payload) = Delivered::decode(datagram).map_err(|_| DropReason::Malformed)?;
        let us = self.membership.us;
        match frame.destination {
            Destination::One(member) if member == us => {}
            Destination::One(_) => return Err(DropReason::NotForUs),
            Destination::Everyone => return Err(DropReason::GroupTraffic),
        }
        if frame.source == us {
            let probe = SelfProbe::decode(payload).ok_or(DropReason::SelfProbe)?;
            return self.with_leases(now, |leases, around| {
                leases.handle_self_probe(source, probe, around)
            });
        }
        if payload.first() == Some(&payload::SEALED_BROADCAST) {
            return Err(DropReason::GroupTraffic);
        }
        let path = self.leases.path_back(relay, frame.ingress);
        self.receive_wireguard(frame.source, path, payload, now)
    }

    fn receive_wireguard(
        &mut self,
        member: Member,
        path: Path,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let kind = tunnel::kind(datagram).ok_or(DropReason::Malformed)?;
        let Some(peer) = self.peers.get_mut(&member) else {
            return self.hold(member, path, kind, datagram, now);
        };
        if peer.is_copy(datagram) {
            return Err(DropReason::Duplicate);
        }
        let is_behind = peer.epoch_notice.is_some();
        let was_heard = peer.is_heard_within(HEARD_RECENTLY, now);
        let slot = match kind {
            Kind::Initiation => peer.tunnels.for_handshake(is_behind),
            Kind::Session(index) | Kind::Cookie(index) => {
                peer.tunnels.by_index(index).ok_or(DropReason::UnknownIndex)?
            }
        };
        let is_current = slot.epoch == self.membership.epoch();
        let mut frame = self.outbox.buffer();
        let received = match slot.tunnel.decapsulate(datagram, &mut frame[HEADER_LEN..]) {
            Ok(received) => received,
            Err(refused) => {
                self.outbox.recycle(frame);
                if refused == Refused::Stale {
                    // Its clock went back: our initiation needs no newer stamp of its.
                    peer.handshake.provoke(now);
                    self.note_deadline_of(member);
                }
                return Err(drop_reason(refused));
            }
        };
        match kind {
            Kind::Initiation => {
                peer.heard(path, now);
                peer.forget_announced_sequence();
            }
            Kind::Session(_) => {
                peer.heard(path, now);
                if is_current {
                    // Only a holder of the epoch's secret has this session.
                    peer.epoch_notice = None;
                    peer.handshake.stop();
                }
            }
            Kind::Cookie(_) => {}
        }
        peer.tunnels.wake(now);
        if !was_heard {
            // Before its first packet reaches the host, whose answer asks for its address.
            self.outbox.event(Event::MembersChanged);
        }
        match received {
            Received::Nothing => self.outbox.recycle(frame),
            Received::Reply(length) => {
                frame.truncate(HEADER_LEN + length);
                self.send_everywhere(member, frame);
            }
            Received::Packet(length) => {
                frame.truncate(HEADER_LEN + length);
                self.note_traffic(now);
                if let Err(reason) = self.receive_inner(member, path.by, frame, now) {
                    self.outbox.drop(reason);
                }
            }
        }
        self.use_session(member, now);
        Ok(())
    }

    /// Uses the session that may just have come up.
    fn use_session(&mut self, member: Member, now: Instant) {
        let sequence = self.announcement.sequence;
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let mut is_new = false;
        if peer.tunnels.has_session() {
            if peer.leases_acked != Some(sequence) && peer.leases_notice.is_none() {
                peer.leases_notice = Some(Notice::new(now));
                is_new = true;
            }
            if !peer.queue.is_empty() {
                peer.echoes.wake(now);
                self.flush(member, now);
            }
        }
        if is_new {
            self.send_long_echo(member, now);
        }
        self.note_deadline_of(member);
    }

    /// `frame[HEADER_LEN..]` is a packet from inside the member's tunnel.
    fn receive_inner(
        &mut self,
        member: Member,
        relay: RelayId,
        mut frame: Vec<u8>,
        now: Instant,
    ) -> Result<(), DropReason> {
        if inner::is_message(&frame[HEADER_LEN..]) {
            let result = self.receive_message(member, relay, &frame[HEADER_LEN..], now);
            self.outbox.recycle(frame);
            return result;
        }
        frame.drain(..HEADER_LEN);
        self.deliver(member, frame, now)
    }

    /// A member's IP packet, whole: to the NIC, if it may cross.
    pub(super) fn deliver(
        &mut self,
        member: Member,
        mut bytes: Vec<u8>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let ends = (member, self.membership.us);
        let checked = match IpPacket::parse(&bytes) {
            Some(packet) if packet.length <= NIC_MTU && !inner::is_message(&bytes) => {
                filter::inbound(&packet, &self.membership.networks, ends).map(|()| packet.length)
            }
            _ => Err(DropReason::NotIp),
        };
        let length = match checked {
            Ok(length) => length,
            Err(reason) => {
                self.outbox.recycle(bytes);
                return Err(reason);
            }
        };
        bytes.truncate(length);
        mss::clamp(&mut bytes, self.inner_mtu(member));
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.bytes_received += length as u64;
            if peer.used(now) {
                peer.echoes.wake(now);
            }
        }
        self.outbox.deliver(bytes);
        Ok(())
    }

    /// Keeps an initiation of a member whose entry is still on its way from control.
    fn hold(
        &mut self,
        member: Member,
        path: Path,
        kind: Kind,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        self.held.retain(|held| held.member != member && now < held.until);
        if kind != Kind::Initiation || self.held.len() == HELD_MAX {
            return Err(DropReason::UnknownMember);
        }
        let until = now + HELD_LIFETIME;
        self.held.push(Held { member, path, datagram: datagram.to_vec(), until });
        Ok(())
    }

    /// The member has become known.
    pub(super) fn receive_held(&mut self, member: Member, now: Instant) {
        let Some(at) = self.held.iter().position(|held| held.member == member) else { return };
        let held = self.held.swap_remove(at);
        if now >= held.until {
            return self.outbox.drop(DropReason::UnknownMember);
        }
        if let Err(reason) = self.receive_wireguard(member, held.path, &held.datagram, now) {
            self.outbox.drop(reason);
        }
    }

    pub(super) fn note_deadline_of(&mut self, member: Member) {
        let deadline = self.peers.get(&member).and_then(Peer::deadline);
        self.note_deadline(deadline);
    }
}
