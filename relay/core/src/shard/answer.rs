use std::fmt;

use lanrage_proto::frame::hint::Hint;
use lanrage_proto::stun::RESPONSE_LEN_MAX;

/// A short datagram that goes back to where the question came from.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Answer {
    bytes: [[u8; 4]; RESPONSE_LEN_MAX / 4],
    len: usize,
}

const _: () = assert!(RESPONSE_LEN_MAX.is_multiple_of(4) && Hint::LEN <= RESPONSE_LEN_MAX);

impl Answer {
    /// The datagram.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes.as_flattened()[..self.len]
    }

    /// The caller appends [`RESPONSE_LEN_MAX`] bytes at most.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes.as_flattened_mut()[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&self.as_bytes()).finish()
    }
}
