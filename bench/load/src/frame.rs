//! Prepared frames: Ethernet, IPv4, UDP without a checksum, and what a contestant wants in front.

use std::net::SocketAddrV4;

/// Ethernet, IPv4 and UDP headers.
pub const HEADERS_LEN: usize = 14 + 20 + 8;
/// What a contestant wants before the payload, at most; a BIND's fields before its Noise message fit.
pub const PREFIX_MAX: usize = 46;
/// What the generator writes before each payload.
pub const HEAD_LEN: usize = HEADERS_LEN + PREFIX_MAX;
/// At the payload's start: a time stamp (u64, host order, 0 is none), and the receiver's address.
pub const STAMP_LEN: usize = 8 + 4;

/// Where frames enter the relay's network.
#[derive(Debug, Clone, Copy)]
pub struct Road {
    /// The relay's interface.
    pub to: [u8; 6],
    /// The gateway's.
    pub from: [u8; 6],
    /// The relay's address.
    pub relay: SocketAddrV4,
}

/// The bytes before the payload: headers for `payload_len` bytes after the prefix, then the prefix.
///
/// # Panics
///
/// If the prefix is longer than [`PREFIX_MAX`].
#[must_use]
pub fn head(
    road: &Road,
    source: SocketAddrV4,
    prefix: &[u8],
    payload_len: usize,
) -> [u8; HEAD_LEN] {
    assert!(prefix.len() <= PREFIX_MAX, "a prefix of {} bytes", prefix.len());
    let udp_len = 8 + prefix.len() + payload_len;
    let mut head = [0; HEAD_LEN];
    head[0..6].copy_from_slice(&road.to);
    head[6..12].copy_from_slice(&road.from);
    head[12..14].copy_from_slice(&[0x08, 0x00]);
    head[14] = 0x45;
    head[16..18].copy_from_slice(&((20 + udp_len) as u16).to_be_bytes());
    head[20] = 0x40; // Don't fragment.
    head[22] = 64;
    head[23] = 17;
    head[26..30].copy_from_slice(&source.ip().octets());
    head[30..34].copy_from_slice(&road.relay.ip().octets());
    let checksum = checksum(&head[14..34]);
    head[24..26].copy_from_slice(&checksum.to_be_bytes());
    head[34..36].copy_from_slice(&source.port().to_be_bytes());
    head[36..38].copy_from_slice(&road.relay.port().to_be_bytes());
    head[38..40].copy_from_slice(&(udp_len as u16).to_be_bytes());
    head[HEADERS_LEN..HEADERS_LEN + prefix.len()].copy_from_slice(prefix);
    head
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 =
        header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071's many explanations: a header whose sum is known.
    #[test]
    fn checksum_of_a_known_header() {
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00,
            0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(checksum(&header), 0xb861);
    }

    #[test]
    fn lengths_cover_prefix_and_payload() {
        let road = Road { to: [1; 6], from: [2; 6], relay: "192.0.2.1:51820".parse().unwrap() };
        let head = head(&road, "192.0.2.9:7".parse().unwrap(), &[9; 16], 120);
        assert_eq!(u16::from_be_bytes([head[16], head[17]]), 20 + 8 + 16 + 120);
        assert_eq!(u16::from_be_bytes([head[38], head[39]]), 8 + 16 + 120);
        assert_eq!(head[HEADERS_LEN..HEADERS_LEN + 16], [9; 16]);
        assert_eq!(checksum(&head[14..34]), 0, "a header with its checksum sums to zero");
    }
}
