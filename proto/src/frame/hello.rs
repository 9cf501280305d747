use super::Nonce;
use crate::datagram::first_byte;
use crate::wire::{Malformed, Reader, Writer};

/// A client's first frame; the relay stores nothing for it (§4.1).
///
/// ```text
/// | 0xF0 | version_min u8 | version_max u8 | 0 | nonce 16 B | zeros to 256 B |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The lowest protocol version the client speaks.
    pub version_min: u8,
    /// The highest.
    pub version_max: u8,
    /// Repeated by the answer.
    pub nonce: Nonce,
}

impl Hello {
    /// Padded so that no answer is longer than its question.
    pub const LEN: usize = 256;

    /// The frame's bytes.
    pub fn encode(self) -> Vec<u8> {
        Writer::with_capacity(Self::LEN)
            .u8(first_byte::HELLO)
            .u8(self.version_min)
            .u8(self.version_max)
            .u8(0)
            .bytes(&self.nonce.0)
            .zeros(Self::LEN - 20)
            .finish()
    }

    /// Byte 3 and the padding are not looked at: a later version may use them.
    ///
    /// # Errors
    /// Another length, an empty version range.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        if datagram.len() != Self::LEN {
            return Err(Malformed("hello length"));
        }
        let mut reader = Reader::new(datagram, "hello");
        let [first, version_min, version_max, _] = reader.array()?;
        if first != first_byte::HELLO || version_min == 0 || version_min > version_max {
            return Err(Malformed("hello version range"));
        }
        Ok(Self { version_min, version_max, nonce: Nonce(reader.array()?) })
    }

    /// Whether the client speaks `version`.
    pub fn speaks(&self, version: u8) -> bool {
        (self.version_min..=self.version_max).contains(&version)
    }
}
