use std::fmt;
use std::net::SocketAddr;

use lanrage_proto::frame::hint::Hint;
use lanrage_proto::stun::{RESPONSE_LEN_MAX, TransactionId, encode_response};

/// A short datagram: an answer, or what a member or a relay is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    bytes: [u8; RESPONSE_LEN_MAX],
    len: usize,
}

impl Answer {
    /// The datagram.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn new<const LEN: usize>(datagram: &[u8; LEN]) -> Self {
        const { assert!(LEN <= RESPONSE_LEN_MAX) };
        let mut bytes = [0; RESPONSE_LEN_MAX];
        bytes[..LEN].copy_from_slice(datagram);
        Self { bytes, len: LEN }
    }

    pub(super) fn hint(hint: Hint) -> Self {
        let mut buffer = [0; Hint::LEN_MAX];
        let len = hint.encode(&mut buffer).len();
        Self { len, ..Self::new(&buffer) }
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
