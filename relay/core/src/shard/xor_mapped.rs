use std::net::SocketAddr;

use lanrage_proto::stun::{MAGIC_COOKIE, TransactionId};

use super::Answer;

/// XOR-MAPPED-ADDRESS alone (RFC 8489 §14.2), the same bytes as
/// [`lanrage_proto::stun::encode_response`] without its allocation.
pub(super) fn answer(id: TransactionId, client: SocketAddr) -> Answer {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&id.0);
    let port = client.port() ^ (MAGIC_COOKIE >> 16) as u16;
    match client {
        SocketAddr::V4(client) => encode(1, port, client.ip().octets(), &mask),
        SocketAddr::V6(client) => encode(2, port, client.ip().octets(), &mask),
    }
}

fn encode<const N: usize>(family: u8, port: u16, address: [u8; N], mask: &[u8; 16]) -> Answer {
    let mut answer = Answer::default();
    answer.push(&[0x01, 0x01, 0, 8 + N as u8]);
    answer.push(mask);
    answer.push(&[0x00, 0x20, 0, 4 + N as u8, 0, family]);
    answer.push(&port.to_be_bytes());
    let mut masked = address;
    masked.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    answer.push(&masked);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanrage_proto::stun::{RESPONSE_LEN_MAX, encode_response};

    #[test]
    fn equals_the_protocol_crate() {
        let id = TransactionId(*b"abcdefghijkl");
        for client in ["192.0.2.7:51820", "[2001:db8::7]:443"] {
            let client = client.parse().unwrap();
            assert_eq!(answer(id, client).as_bytes(), encode_response(id, client));
            assert!(answer(id, client).as_bytes().len() <= RESPONSE_LEN_MAX);
        }
    }
}
