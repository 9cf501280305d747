use std::net::SocketAddr;

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

/// A Binding success response with XOR-MAPPED-ADDRESS alone (RFC 8489 §14.2).
pub fn encode_response(id: TransactionId, client: SocketAddr) -> Vec<u8> {
    let (family, address) = xor_address(id, client);
    Writer::with_capacity(RESPONSE_LEN_MAX)
        .u16(BINDING_SUCCESS)
        .u16(8 + address.len() as u16)
        .u32(MAGIC_COOKIE)
        .bytes(&id.0)
        .u16(XOR_MAPPED_ADDRESS)
        .u16(4 + address.len() as u16)
        .u8(0)
        .u8(family)
        .u16(client.port() ^ (MAGIC_COOKIE >> 16) as u16)
        .bytes(&address)
        .finish()
}

/// Family and the address exclusive-ored with the magic cookie and the transaction id.
fn xor_address(id: TransactionId, client: SocketAddr) -> (u8, Vec<u8>) {
    let mut mask = MAGIC_COOKIE.to_be_bytes().to_vec();
    mask.extend_from_slice(&id.0);
    let xor = |octets: &[u8]| octets.iter().zip(&mask).map(|(a, b)| a ^ b).collect();
    match client {
        SocketAddr::V4(client) => (1, xor(&client.ip().octets())),
        SocketAddr::V6(client) => (2, xor(&client.ip().octets())),
    }
}
