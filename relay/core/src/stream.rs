//! Where a lease is whose member's network blocks UDP (§11): an address that stands for a stream.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use lanrage_relay_table::{Endpoint, LocalId};

/// Stands in an endpoint in the place of one of the relay's addresses: the rest names a stream.
pub const STREAM_LOCAL: LocalId = LocalId(u16::MAX);

/// The address that a stream's datagrams are from.
///
/// ```text
/// | 0xff | the peer's /56, or /24 of IPv4, 7 B | number of the stream u64 | the peer's port
/// ```
///
/// A number names one stream ever, so a lease at a stream is at no other one. Nor does UDP come
/// from there: the kernel drops what has a multicast source (`ip6_rcv_core` in
/// net/ipv6/ip6_input.c). The binder's budgets go by the first seven bytes, so that each network
/// that streams come from has its own.
pub fn stream_address(number: u64, peer: SocketAddr) -> SocketAddr {
    let mut octets = [0; 16];
    octets[0] = 0xff;
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => octets[1..4].copy_from_slice(&ip.octets()[..3]),
        IpAddr::V6(ip) => octets[1..8].copy_from_slice(&ip.octets()[..7]),
    }
    octets[8..].copy_from_slice(&number.to_be_bytes());
    SocketAddr::new(Ipv6Addr::from(octets).into(), peer.port())
}

/// The number of the stream that an endpoint is, if it is one.
pub fn stream_number(endpoint: &Endpoint) -> Option<u64> {
    let [.., a, b, c, d, e, f, g, h] = endpoint.ip.octets();
    (endpoint.local == STREAM_LOCAL).then(|| u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_told_by_its_number_and_a_network_by_its_prefix() {
        let peer: SocketAddr = "192.0.2.77:4000".parse().unwrap();
        let address = stream_address(u64::MAX - 1, peer);
        assert_eq!(address.to_string(), "[ffc0:2::ffff:ffff:ffff:fffe]:4000");
        assert!(address.ip().is_multicast());
        let endpoint = Endpoint::new(address, STREAM_LOCAL);
        assert_eq!(stream_number(&endpoint), Some(u64::MAX - 1));
        assert_eq!(stream_number(&Endpoint { local: LocalId(0), ..endpoint }), None);

        let mapped = "[::ffff:192.0.2.1]:4000".parse().unwrap();
        assert_eq!(stream_address(u64::MAX - 1, mapped), address, "the same /24");
        let other = stream_address(1, "[2001:db8:1:200::1]:1".parse().unwrap());
        assert_eq!(other.to_string(), "[ff20:10d:b800:102::1]:1");
    }
}
