use std::time::{Duration, Instant};

use lanrage_proto::Member;

use super::Client;
use crate::membership::Known;
use crate::paths::Path;
use crate::peer::Peer;
use crate::status::{Connection, MemberStatus, PathStatus, Quality, RelayName};

/// How long after its last authentic datagram a peer answers on the LAN though control has it off
/// line.
pub(super) const HEARD_RECENTLY: Duration = Duration::from_secs(30);

impl Client {
    pub(super) fn answers_for(&self, member: Member, now: Instant) -> bool {
        let is_online = self.membership.member(member).is_some_and(|known| known.record.online);
        let peer = self.peers.get(&member);
        peer.is_some_and(|peer| is_online || peer.is_heard_within(HEARD_RECENTLY, now))
    }

    pub(super) fn member_statuses(&self, now: Instant) -> Vec<MemberStatus> {
        self.membership.members().map(|known| self.member_status(known, now)).collect()
    }

    fn member_status(&self, known: &Known, now: Instant) -> MemberStatus {
        let record = &known.record;
        let member = record.member;
        let is_self = member == self.membership.us;
        let networks = &self.membership.networks;
        let peer = self.peers.get(&member);
        let signed_name = known.entry.as_ref().map(|entry| &entry.body.name);
        MemberStatus {
            member,
            name: signed_name.unwrap_or(&record.name).clone(),
            role: record.role,
            is_self,
            ipv4: networks.ipv4(member),
            ipv6: networks.ipv6(member),
            online: is_self || self.answers_for(member, now),
            connection: if is_self { Connection::Local } else { self.connection(peer) },
            paths: peer.map_or_else(Vec::new, |peer| {
                let map = &self.credentials.relay_map;
                let name = |path: Path| PathStatus {
                    relay: RelayName::new(path.by, map),
                    egress: path.is_crossing().then(|| RelayName::new(path.egress, map)),
                };
                peer.paths(self.leases.end(), now).iter().map(name).collect()
            }),
            quality: peer.map_or_else(Quality::default, |peer| peer.echoes.window.quality()),
            last_handshake: peer
                .and_then(|peer| peer.tunnels.current.tunnel.time_since_handshake()),
            bytes_sent: peer.map_or(0, |peer| peer.bytes_sent),
            bytes_received: peer.map_or(0, |peer| peer.bytes_received),
        }
    }

    fn connection(&self, peer: Option<&Peer>) -> Connection {
        match peer {
            None => Connection::NotGenuine,
            Some(_) if !self.leases.work() => Connection::NoLease,
            Some(peer) if peer.tunnels.has_session() && peer.is_silent() => Connection::Silent,
            Some(peer) if peer.tunnels.has_session() => Connection::Connected,
            Some(peer) if peer.handshake.is_under_way() => Connection::Handshaking,
            Some(_) => Connection::Idle,
        }
    }
}
