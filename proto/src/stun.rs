use std::net::{IpAddr, SocketAddr};

use crate::wire::Writer;

/// The fixed value at bytes 4..8 (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_a442;
/// A request without attributes.
pub const HEADER_LEN: usize = 20;
/// The longest answer: the header and XOR-MAPPED-ADDRESS of an IPv6 client.
pub const RESPONSE_LEN_MAX: usize = 44;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// The transaction id a response repeats (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionId(pub [u8; 12]);

/// Whether bytes 4..8 hold the magic cookie.
pub fn has_magic_cookie(datagram: &[u8]) -> bool {
    datagram.get(4..8) == Some(&MAGIC_COOKIE.to_be_bytes())
}

/// The transaction id of a well-formed Binding request; attributes are allowed and ignored.
pub fn binding_request(datagram: &[u8]) -> Option<TransactionId> {
    let (header, attributes) = datagram.split_first_chunk::<HEADER_LEN>()?;
    let message_type = u16::from_be_bytes([header[0], header[1]]);
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let well_formed = message_type == BINDING_REQUEST
        && has_magic_cookie(header)
        && length == attributes.len()
        && length % 4 == 0;
    let id = header[8..].first_chunk()?;
    well_formed.then_some(TransactionId(*id))
}

/// A Binding request without attributes.
pub fn encode_request(id: TransactionId) -> Vec<u8> {
    Writer::with_capacity(HEADER_LEN)
        .u16(BINDING_REQUEST)
        .u16(0)
        .u32(MAGIC_COOKIE)
        .bytes(&id.0)
        .finish()
}

/// Writes a Binding success response with XOR-MAPPED-ADDRESS alone (RFC 8489 §14.2), without
/// allocating. Returns what it has written: 32 bytes for an IPv4 client, 44 for IPv6.
pub fn encode_response(
    id: TransactionId,
    client: SocketAddr,
    buffer: &mut [u8; RESPONSE_LEN_MAX],
) -> &[u8] {
    let (family, octets, ip_len) = match client.ip() {
        IpAddr::V4(ip) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&ip.octets());
            (1, octets, 4)
        }
        IpAddr::V6(ip) => (2, ip.octets(), 16),
    };
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&id.0);
    let attribute_len = 4 + ip_len as u16;
    let port = client.port() ^ (MAGIC_COOKIE >> 16) as u16;

    buffer[0..2].copy_from_slice(&BINDING_SUCCESS.to_be_bytes());
    buffer[2..4].copy_from_slice(&(4 + attribute_len).to_be_bytes());
    buffer[4..20].copy_from_slice(&mask);
    buffer[20..22].copy_from_slice(&XOR_MAPPED_ADDRESS.to_be_bytes());
    buffer[22..24].copy_from_slice(&attribute_len.to_be_bytes());
    buffer[24..26].copy_from_slice(&[0, family]);
    buffer[26..28].copy_from_slice(&port.to_be_bytes());
    let masked = octets.iter().zip(mask).map(|(octet, mask)| octet ^ mask);
    buffer[28..].iter_mut().zip(masked).for_each(|(byte, masked)| *byte = masked);
    &buffer[..28 + ip_len]
}
