use super::{Cookie, Nonce, VERSION};
use crate::datagram::first_byte;
use crate::signed::RelayCertificate;
use crate::wire::{Malformed, Reader, Writer};

/// The relay's answer to HELLO: who it is, signed by control, and a cookie (§4.2).
///
/// ```text
/// | 0xF2 | version u8 | 0 u16 | nonce 16 B | relay certificate 136 B | cookie 20 B |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The HELLO's.
    pub nonce: Nonce,
    /// The relay's id, unicast addresses and key; the signature is not yet checked.
    pub certificate: RelayCertificate,
    /// To be repeated by BIND or RESUME from the same address.
    pub cookie: Cookie,
}

impl Challenge {
    /// Bytes of the frame.
    pub const LEN: usize = 4 + 16 + RelayCertificate::LEN + Cookie::LEN;

    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        Writer::with_capacity(Self::LEN)
            .bytes(&[first_byte::CHALLENGE, VERSION, 0, 0])
            .bytes(&self.nonce.0)
            .bytes(&self.certificate.encode())
            .bytes(&self.cookie.0)
            .finish()
    }

    /// # Errors
    /// Another length or version, a malformed certificate.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram, "challenge");
        if reader.array()? != [first_byte::CHALLENGE, VERSION, 0, 0] {
            return Err(Malformed("challenge version"));
        }
        let challenge = Self {
            nonce: Nonce(reader.array()?),
            certificate: RelayCertificate::decode(&reader.array()?)?,
            cookie: Cookie(reader.array()?),
        };
        reader.finish()?;
        Ok(challenge)
    }
}

const _: () = assert!(Challenge::LEN <= super::hello::Hello::LEN);

/// The relay's answer to a HELLO whose versions it does not speak (§4.3).
///
/// ```text
/// | 0xF5 | version_min u8 | version_max u8 | 0 | nonce 16 B |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The lowest version the relay speaks.
    pub version_min: u8,
    /// The highest.
    pub version_max: u8,
    /// The HELLO's.
    pub nonce: Nonce,
}

impl Unsupported {
    /// Bytes of the frame.
    pub const LEN: usize = 20;

    /// The frame's bytes.
    pub fn encode(self) -> Vec<u8> {
        Writer::with_capacity(Self::LEN)
            .bytes(&[first_byte::UNSUPPORTED, self.version_min, self.version_max, 0])
            .bytes(&self.nonce.0)
            .finish()
    }

    /// # Errors
    /// Another length.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram, "unsupported");
        let [first, version_min, version_max, _] = reader.array()?;
        let nonce = Nonce(reader.array()?);
        reader.finish()?;
        if first != first_byte::UNSUPPORTED {
            return Err(Malformed("unsupported"));
        }
        Ok(Self { version_min, version_max, nonce })
    }
}
