use chacha20poly1305::aead::Aead;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use zeroize::Zeroizing;

use super::bind::BindResult;
use super::{Cookie, Nonce, VERSION};
use crate::datagram::first_byte;
use crate::ids::RelayId;
use crate::mac::{mac16, mac32};
use crate::wire::{Malformed, Reader, Writer};

/// The longest resumption ticket a relay may give out: BOUND with it is not longer than BIND.
pub const TICKET_LEN_MAX: usize = 104;
const HEADER_LEN: usize = 4 + 16;
const PROOF_LEN: usize = 16;
const IV_LEN: usize = 12;
const SEAL_LEN: usize = IV_LEN + 16;

/// Asks a restarted relay for the lease it had given (§5.4): no public-key work for either side.
///
/// ```text
/// | 0xF8 | version u8 | ticket length u16 | nonce 16 B | cookie 20 B | proof 16 B | resumption ticket | zeros |
/// ```
///
/// As long as the longest answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume<'a> {
    /// The HELLO's.
    pub nonce: Nonce,
    /// The CHALLENGE's.
    pub cookie: Cookie,
    /// The relay's own sealed bytes.
    pub ticket: &'a [u8],
    proof: [u8; PROOF_LEN],
}

const _: () = assert!(HEADER_LEN + Cookie::LEN + PROOF_LEN + TICKET_LEN_MAX <= Resume::LEN);

impl<'a> Resume<'a> {
    /// Bytes of the frame.
    pub const LEN: usize = Resumed::LEN_MAX;

    /// Proves possession of the resumption key to `relay`. The ticket has 1 to [`TICKET_LEN_MAX`]
    /// bytes.
    pub fn new(
        nonce: Nonce,
        cookie: Cookie,
        ticket: &'a [u8],
        key: &[u8; 32],
        relay: RelayId,
    ) -> Self {
        Self { nonce, cookie, ticket, proof: proof(key, nonce, cookie, relay) }
    }

    /// Whether the sender holds the resumption key; in constant time.
    pub fn proves(&self, key: &[u8; 32], relay: RelayId) -> bool {
        use subtle::ConstantTimeEq as _;
        proof(key, self.nonce, self.cookie, relay).ct_eq(&self.proof).into()
    }

    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!((1..=TICKET_LEN_MAX).contains(&self.ticket.len()));
        let mut frame = Writer::with_capacity(Self::LEN)
            .bytes(&[first_byte::RESUME, VERSION])
            .u16(self.ticket.len() as u16)
            .bytes(&self.nonce.0)
            .bytes(&self.cookie.0)
            .bytes(&self.proof)
            .bytes(self.ticket)
            .finish();
        frame.resize(Self::LEN, 0);
        frame
    }

    /// # Errors
    /// Another version or length, no ticket or one that is too long, other padding than zeros.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram, "resume");
        if reader.array()? != [first_byte::RESUME, VERSION] {
            return Err(Malformed("resume version"));
        }
        let ticket_len = usize::from(reader.u16()?);
        let nonce = Nonce(reader.array()?);
        let cookie = Cookie(reader.array()?);
        let proof = reader.array()?;
        let has_length = datagram.len() == Self::LEN && (1..=TICKET_LEN_MAX).contains(&ticket_len);
        let ticket = reader.take(ticket_len)?;
        if !has_length || reader.rest().iter().any(|byte| *byte != 0) {
            return Err(Malformed("resume length"));
        }
        Ok(Self { nonce, cookie, ticket, proof })
    }
}

fn proof(key: &[u8; 32], nonce: Nonce, cookie: Cookie, relay: RelayId) -> [u8; PROOF_LEN] {
    let relay = relay.0.to_be_bytes();
    mac16(key, &[b"lanrage resume", &nonce.0, &cookie.0, &relay])
}

/// The relay's answer to RESUME: a [`BindResult`] under a key that only this exchange has (§5.4).
///
/// ```text
/// | 0xF9 | version u8 | 0 u16 | nonce 16 B | IV 12 B | ChaCha20-Poly1305(bind result) |
/// ```
///
/// The IV is a MAC of the result: a RESUME that arrives twice may be answered by two results, and
/// the cipher still sees no nonce twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed<'a> {
    /// The RESUME's.
    pub nonce: Nonce,
    sealed: &'a [u8],
}

impl<'a> Resumed<'a> {
    /// Bytes of the longest frame.
    pub const LEN_MAX: usize = HEADER_LEN + SEAL_LEN + BindResult::LEN_MAX;

    /// Seals the answer to `resume` under the resumption key.
    pub fn seal(resume: &Resume<'_>, key: &[u8; 32], result: &BindResult) -> Vec<u8> {
        let result = result.encode();
        let iv = answer_iv(key, resume.nonce, resume.cookie, &result);
        let sealed = answer_cipher(key, resume.nonce, resume.cookie)
            .encrypt(&iv.into(), result.as_slice())
            .expect("the result is far below the cipher's limit");
        Writer::with_capacity(HEADER_LEN + IV_LEN + sealed.len())
            .bytes(&[first_byte::RESUMED, VERSION, 0, 0])
            .bytes(&resume.nonce.0)
            .bytes(&iv)
            .bytes(&sealed)
            .finish()
    }

    /// # Errors
    /// Another version, too short, too long.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram, "resumed");
        if reader.array()? != [first_byte::RESUMED, VERSION, 0, 0] {
            return Err(Malformed("resumed version"));
        }
        let nonce = Nonce(reader.array()?);
        let sealed = reader.rest();
        if !(SEAL_LEN + 1..=SEAL_LEN + BindResult::LEN_MAX).contains(&sealed.len()) {
            return Err(Malformed("resumed length"));
        }
        Ok(Self { nonce, sealed })
    }

    /// Opens the answer with the key and cookie of the RESUME.
    ///
    /// # Errors
    /// Not sealed by the relay that was asked, or malformed inside.
    pub fn open(&self, key: &[u8; 32], cookie: Cookie) -> Result<BindResult, Malformed> {
        let (iv, sealed) =
            self.sealed.split_first_chunk::<IV_LEN>().ok_or(Malformed("resumed length"))?;
        let result = answer_cipher(key, self.nonce, cookie)
            .decrypt(iv.into(), sealed)
            .map(Zeroizing::new)
            .map_err(|_| Malformed("resumed seal"))?;
        BindResult::decode(&result)
    }
}

/// The key of one exchange: nonce and cookie are its own.
fn answer_cipher(key: &[u8; 32], nonce: Nonce, cookie: Cookie) -> ChaCha20Poly1305 {
    let key = Zeroizing::new(mac32(key, &[b"lanrage resumed", &nonce.0, &cookie.0]));
    ChaCha20Poly1305::new((&*key).into())
}

fn answer_iv(key: &[u8; 32], nonce: Nonce, cookie: Cookie, result: &[u8]) -> [u8; IV_LEN] {
    let mac = mac16(key, &[b"lanrage resumed iv", &nonce.0, &cookie.0, result]);
    *mac.first_chunk().expect("a MAC is longer than an IV")
}
