use std::fmt;
use std::net::SocketAddr;

use lanrage_proto::frame::hint::Hint;
use lanrage_proto::stun::{RESPONSE_LEN_MAX, TransactionId, encode_response};

/// A short datagram that goes back to where the question came from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    bytes: [u8; RESPONSE_LEN_MAX],
    len: usize,
}

const _: () = assert!(Hint::LEN <= RESPONSE_LEN_MAX);

impl Answer {
    /// The datagram.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn hint(hint: Hint) -> Self {
        let mut bytes = [0; RESPONSE_LEN_MAX];
        bytes[..Hint::LEN].copy_from_slice(&hint.encode());
        Self { bytes, len: Hint::LEN }
    }

    pub(super) fn stun(id: TransactionId, client: SocketAddr) -> Self {
        let mut bytes = [0; RESPONSE_LEN_MAX];
        let len = encode_response(id, client, &mut bytes).len();
        Self { bytes, len }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&self.as_bytes()).finish()
    }
}
