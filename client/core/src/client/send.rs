//! From the NIC, and from ourselves, to a member.

use std::time::Instant;

use lanrage_proto::frame::data::HEADER_LEN;
use lanrage_proto::frame::mesh::GROWTH;
use lanrage_proto::inner::Message;
use lanrage_proto::{Destination, Member, RelayId};

use super::Client;
use crate::counters::DropReason;
use crate::lease::leases::Leases;
use crate::nic::packet::IpPacket;
use crate::nic::{INNER_MTU_MIN, NIC_MTU, filter, fragment, mss};
use crate::outbox::Outbox;
use crate::paths::{Path, Paths};
use crate::peer::Peer;
use crate::tunnel::Refused;

/// Which way something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As the states of both ends' leases say.
    Chosen,
    /// By every lease: what must arrive.
    Everywhere,
}

impl Client {
    /// A packet from the NIC: to a member, or into its queue while there is no session.
    pub(super) fn send_packet(&mut self, bytes: &mut [u8], now: Instant) -> Result<(), DropReason> {
        if bytes.len() > NIC_MTU {
            return Err(DropReason::TooLong);
        }
        let packet = IpPacket::parse(bytes).ok_or(DropReason::NotIp)?;
        let length = packet.length;
        let member = filter::outbound(&packet, &self.membership.networks, self.membership.us)?;
        let bytes = &mut bytes[..length];
        mss::clamp(bytes, self.inner_mtu(member));
        let peer = self.peers.get_mut(&member).ok_or(DropReason::NoSuchMember)?;
        if peer.used(now) {
            peer.echoes.wake(now);
        }
        let has_session = peer.tunnels.has_session();
        self.note_traffic(now);
        if has_session { self.forward(member, bytes, now) } else { self.queue(member, bytes, now) }
    }

    /// Keeps a packet until there is a session, and sees to one.
    pub(super) fn queue(
        &mut self,
        member: Member,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let peer = self.peers.get_mut(&member).ok_or(DropReason::NoSuchMember)?;
        let copy = self.outbox.copy(packet);
        let result = peer.queue.push(copy, now).map_err(|packet| {
            self.outbox.recycle(packet);
            DropReason::QueueFull
        });
        peer.handshake.want(now);
        let deadline = peer.deadline();
        self.note_deadline(deadline);
        result
    }

    /// An IP packet through the member's session, in pieces when one datagram is too small.
    pub(super) fn forward(
        &mut self,
        member: Member,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let inner_mtu = self.inner_mtu(member);
        let peer = self.peers.get_mut(&member).ok_or(DropReason::NoSuchMember)?;
        peer.bytes_sent += packet.len() as u64;
        if packet.len() > INNER_MTU_MIN {
            peer.size.used();
        }
        if packet.len() <= inner_mtu {
            return self.seal_and_send(member, packet, Way::Chosen, now);
        }
        let id = peer.next_fragment_id();
        let pieces = fragment::split(packet, inner_mtu);
        let count = pieces.len() as u8;
        for (index, piece) in pieces.enumerate() {
            let message = Message::Fragment { id, index: index as u8, count, piece };
            self.send_message(member, &message, Way::Chosen, now)?;
        }
        Ok(())
    }

    /// The longest IP packet to the member in one datagram.
    pub(super) fn inner_mtu(&self, member: Member) -> usize {
        match self.peers.get(&member) {
            Some(peer) if peer.size.is_full() => self.inner_mtu_max(peer),
            _ => INNER_MTU_MIN,
        }
    }

    /// What a path of the kind in use carries at most, between relays also a longer header.
    fn inner_mtu_max(&self, peer: &Peer) -> usize {
        self.leases.inner_mtu() - if peer.size.is_crossing() { GROWTH } else { 0 }
    }

    /// An ECHO as long as the longest IP packet in one datagram: its answer proves that such pass.
    pub(super) fn send_long_echo(&mut self, member: Member, now: Instant) {
        let id = self.pings.next_id();
        let Some(peer) = self.peers.get_mut(&member) else { return };
        peer.size.follow(peer.paths(self.leases.end(), now).cross());
        peer.size.sent(id);
        let length = self.peers.get(&member).map_or(0, |peer| self.inner_mtu_max(peer));
        let networks = &self.membership.networks;
        let (from, to) = (networks.ipv4(self.membership.us), networks.ipv4(member));
        let mut packet = Message::Echo { id }.encode(from, to);
        packet.resize(length, 0);
        if let Err(reason) = self.seal_and_send(member, &packet, Way::Chosen, now) {
            self.outbox.drop(reason);
        }
    }

    pub(super) fn send_message(
        &mut self,
        member: Member,
        message: &Message<'_>,
        way: Way,
        now: Instant,
    ) -> Result<(), DropReason> {
        let networks = &self.membership.networks;
        let packet = message.encode(networks.ipv4(self.membership.us), networks.ipv4(member));
        self.seal_and_send(member, &packet, way, now)
    }

    fn seal_and_send(
        &mut self,
        member: Member,
        packet: &[u8],
        way: Way,
        now: Instant,
    ) -> Result<(), DropReason> {
        let us = self.membership.us;
        let peer = self.peers.get_mut(&member).ok_or(DropReason::NoSuchMember)?;
        let paths = match way {
            Way::Chosen => {
                let paths = peer.paths(self.leases.end(), now);
                peer.size.follow(paths.cross());
                paths
            }
            Way::Everywhere => peer.everywhere(self.leases.end()),
        };
        if paths.is_empty() {
            return Err(DropReason::NoPath);
        }
        let frame = seal(peer, packet, &mut self.outbox)?;
        transmit(&self.leases, paths, (us, member), frame, &mut self.outbox);
        Ok(())
    }

    /// A WireGuard datagram of the tunnel itself, `frame[HEADER_LEN..]`, by every lease.
    pub(super) fn send_everywhere(&mut self, member: Member, frame: Vec<u8>) {
        let Some(peer) = self.peers.get(&member) else { return self.outbox.recycle(frame) };
        let everywhere = peer.everywhere(self.leases.end());
        let ends = (self.membership.us, member);
        transmit(&self.leases, everywhere, ends, frame, &mut self.outbox);
    }

    /// What waited for the session.
    pub(super) fn flush(&mut self, member: Member, now: Instant) {
        while let Some(packet) = self.peers.get_mut(&member).and_then(|peer| peer.queue.pop()) {
            if let Err(reason) = self.forward(member, &packet, now) {
                self.outbox.drop(reason);
            }
            self.outbox.recycle(packet);
        }
    }
}

/// A frame whose header is still to be written.
fn seal(peer: &mut Peer, packet: &[u8], outbox: &mut Outbox) -> Result<Vec<u8>, DropReason> {
    let mut frame = outbox.buffer();
    match peer.tunnels.encapsulate(packet, &mut frame[HEADER_LEN..]) {
        Ok(length) => {
            frame.truncate(HEADER_LEN + length);
            Ok(frame)
        }
        Err(refused) => {
            outbox.recycle(frame);
            Err(drop_reason(refused))
        }
    }
}

/// The same datagram by each path: the receiver takes the first that comes.
fn transmit(
    leases: &Leases,
    paths: Paths,
    (us, member): (Member, Member),
    mut frame: Vec<u8>,
    outbox: &mut Outbox,
) {
    let bound = |path: Path| Some((leases.by_relay(path.by)?.bound()?, path));
    let mut ways = paths.iter().filter_map(bound).peekable();
    while let Some((bound, path)) = ways.next() {
        let mut copy = match ways.peek() {
            Some(_) => outbox.copy(&frame),
            None => std::mem::take(&mut frame),
        };
        let egress = if path.is_crossing() { path.egress } else { RelayId(0) };
        let header = bound.header(egress, Destination::One(member), us);
        copy[..HEADER_LEN].copy_from_slice(&header);
        outbox.transmit(bound.address(), copy);
    }
    outbox.recycle(frame);
}

pub(super) const fn drop_reason(refused: Refused) -> DropReason {
    match refused {
        Refused::NoSession => DropReason::NoSession,
        Refused::Duplicate => DropReason::Duplicate,
        Refused::Stale => DropReason::Stale,
        Refused::NotAuthentic => DropReason::NotAuthentic,
    }
}
