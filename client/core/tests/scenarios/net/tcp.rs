//! The streams that a member's program keeps.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use lanrage_proto::RelayId;

#[derive(Default)]
pub(crate) struct Tcp {
    streams: BTreeMap<RelayId, Stream>,
    opened: u64,
}

struct Stream {
    /// What the relay calls it.
    address: SocketAddr,
    opens_at: Option<Instant>,
}

impl Tcp {
    /// Opens what is wanted and closes what is not.
    pub(crate) fn follow(
        &mut self,
        member: u8,
        wanted: impl Iterator<Item = RelayId>,
        opens_at: Instant,
    ) {
        let wanted: Vec<_> = wanted.collect();
        self.streams.retain(|relay, _| wanted.contains(relay));
        for relay in wanted {
            self.streams.entry(relay).or_insert_with(|| {
                self.opened += 1;
                let number = u64::from(relay.0) << 48 | u64::from(member) << 32 | self.opened;
                let peer = SocketAddr::from((Ipv4Addr::new(203, 0, 113, member), 50_000));
                let address = lanrage_relay_core::stream_address(number, peer);
                Stream { address, opens_at: Some(opens_at) }
            });
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.streams.values().filter_map(|stream| stream.opens_at).min()
    }

    /// A stream that has just opened.
    pub(crate) fn opened(&mut self, now: Instant) -> Option<RelayId> {
        let due = |stream: &Stream| stream.opens_at.is_some_and(|at| at <= now);
        let (relay, stream) = self.streams.iter_mut().find(|(_, stream)| due(stream))?;
        stream.opens_at = None;
        Some(*relay)
    }

    pub(crate) fn break_all(&mut self) -> Vec<RelayId> {
        std::mem::take(&mut self.streams).into_keys().collect()
    }

    pub(crate) fn is_open(&self, relay: RelayId) -> bool {
        self.address(relay).is_some()
    }

    pub(crate) fn address(&self, relay: RelayId) -> Option<SocketAddr> {
        let stream = self.streams.get(&relay).filter(|stream| stream.opens_at.is_none())?;
        Some(stream.address)
    }

    pub(crate) fn has(&self, address: SocketAddr) -> bool {
        self.streams.values().any(|stream| stream.address == address)
    }
}

/// The relay at the other end of a stream, by what that relay calls it.
pub(crate) fn source(address: SocketAddr) -> Option<RelayId> {
    match address.ip() {
        IpAddr::V6(ip)
            if ip.is_multicast() && lanrage_client_core::stream_relay(address).is_none() =>
        {
            Some(RelayId(ip.segments()[4]))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}
