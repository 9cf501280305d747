use std::net::SocketAddr;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

use super::Cookie;
use crate::datagram::first_byte;
use crate::ids::{Handle, RelayId};
use crate::wire::{Malformed, Reader, Writer};

const HEADER_LEN: usize = 16;
const TAG_LEN: usize = 16;

/// A sealed control message: which lease and which counter, readable before it is opened (§5.1).
///
/// ```text
/// | 0xF7 | kind u8 | 0 u16 | handle u32 | counter u64 | ChaCha20-Poly1305(body) |
/// ```
///
/// The header is the associated data, `0 u32 ‖ counter` the nonce; each direction has its own key
/// and a counter that only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// The lease; decides the key.
    pub handle: Handle,
    /// Must be above the last one opened.
    pub counter: u64,
    datagram: &'a [u8],
}

/// What a control message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Kind 1, client to relay, from a new address.
    Rebind,
    /// Kind 2, relay to the new address.
    RebindChallenge(Cookie),
    /// Kind 3, client to relay, from the new address.
    RebindAnswer(Cookie),
    /// Kind 4, relay to client: the lease now sends to this address.
    Rebound(SocketAddr),
    /// Kind 5, client to relay: the lease is no longer wanted.
    Release,
    /// Kind 6, relay to client: it stops serving in `deadline_s` seconds; go to `next`.
    Moving {
        /// Where to go; 0 when the relay knows none.
        next: RelayId,
        /// Seconds left.
        deadline_s: u16,
    },
}

impl Message {
    /// Longest body: a cookie; an address has 18 bytes.
    const BODY_LEN_MAX: usize = Cookie::LEN;

    const fn kind(&self) -> u8 {
        match self {
            Self::Rebind => 1,
            Self::RebindChallenge(_) => 2,
            Self::RebindAnswer(_) => 3,
            Self::Rebound(_) => 4,
            Self::Release => 5,
            Self::Moving { .. } => 6,
        }
    }

    /// REBIND is padded so that the challenge to an unproven address is not longer; the padding is
    /// not looked at.
    fn body(&self) -> Vec<u8> {
        let writer = Writer::with_capacity(Self::BODY_LEN_MAX);
        match self {
            Self::Rebind => writer.zeros(Cookie::LEN).finish(),
            Self::RebindChallenge(cookie) | Self::RebindAnswer(cookie) => {
                writer.bytes(&cookie.0).finish()
            }
            Self::Rebound(address) => writer.address(*address).finish(),
            Self::Release => writer.finish(),
            Self::Moving { next, deadline_s } => writer.u16(next.0).u16(*deadline_s).finish(),
        }
    }

    fn decode(kind: u8, body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body, "control message");
        let message = match kind {
            1 => {
                reader.take(Cookie::LEN)?;
                Self::Rebind
            }
            2 => Self::RebindChallenge(Cookie(reader.array()?)),
            3 => Self::RebindAnswer(Cookie(reader.array()?)),
            4 => Self::Rebound(reader.address()?),
            5 => Self::Release,
            6 => Self::Moving { next: RelayId(reader.u16()?), deadline_s: reader.u16()? },
            _ => return Err(Malformed("control message kind")),
        };
        reader.finish()?;
        Ok(message)
    }

    /// Seals the message under the key of its direction.
    pub fn seal(&self, key: &[u8; 32], handle: Handle, counter: u64) -> Vec<u8> {
        let header = Writer::with_capacity(HEADER_LEN)
            .bytes(&[first_byte::CONTROL, self.kind(), 0, 0])
            .u32(handle.0)
            .u64(counter)
            .finish();
        let sealed = ChaCha20Poly1305::new(key.into())
            .encrypt(&nonce(counter).into(), Payload { msg: &self.body(), aad: &header })
            .expect("the body is far below the cipher's limit");
        [header, sealed].concat()
    }
}

impl<'a> Sealed<'a> {
    /// Bytes of the shortest message: its body is empty.
    pub const LEN_MIN: usize = HEADER_LEN + TAG_LEN;
    /// Bytes of the longest message.
    pub const LEN_MAX: usize = Self::LEN_MIN + Message::BODY_LEN_MAX;

    /// Reads the header; nothing is authentic yet.
    ///
    /// # Errors
    /// Too short, too long, another first byte.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, Malformed> {
        if !(Self::LEN_MIN..=Self::LEN_MAX).contains(&datagram.len()) {
            return Err(Malformed("control message length"));
        }
        let mut reader = Reader::new(datagram, "control message");
        let [first, _kind, zero @ ..] = reader.array::<4>()?;
        if first != first_byte::CONTROL || zero != [0, 0] {
            return Err(Malformed("control message header"));
        }
        Ok(Self { handle: Handle(reader.u32()?), counter: reader.u64()?, datagram })
    }

    /// Opens the message; the caller has checked the counter against the last one it opened.
    ///
    /// # Errors
    /// Not sealed by the lease's other end, or a body that does not fit its kind.
    pub fn open(&self, key: &[u8; 32]) -> Result<Message, Malformed> {
        let (header, sealed) = self.datagram.split_at(HEADER_LEN);
        let body = ChaCha20Poly1305::new(key.into())
            .decrypt(&nonce(self.counter).into(), Payload { msg: sealed, aad: header })
            .map_err(|_| Malformed("control message seal"))?;
        Message::decode(header[1], &body)
    }
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}
