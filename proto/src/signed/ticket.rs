use ed25519_dalek::SigningKey;

use super::{BadSignature, SigningKeys, sign, verifies};
use crate::bytes::{Signature, TunnelKey};
use crate::ids::{Generation, KeyId, Member, PoolId, RateClass, RelayId, SessionId};
use crate::wire::{Malformed, Reader, Writer};

const CONTEXT: &str = "lanrage ticket 1";
const VERSION: u8 = 1;

/// What a ticket grants: this key may bind as this member of this session in this pool (§6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketBody {
    /// Which of control's keys signs.
    pub key_id: KeyId,
    /// Where the ticket holds.
    pub pool: PoolId,
    /// The party.
    pub session: SessionId,
    /// Who may bind.
    pub member: Member,
    /// Revocations name the lowest generation that still holds.
    pub generation: Generation,
    /// The limits of the lease.
    pub rate_class: RateClass,
    /// The key the handshake must prove.
    pub key: TunnelKey,
    /// The party's relays in order; 0 fills the list.
    pub relays: [RelayId; 3],
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970; at most an hour after `not_before`.
    pub expires: u64,
}

/// A [`TicketBody`] and control's signature over it.
///
/// ```text
/// | version u8 | key id u8 | pool u16 | session u64 | member u8 | rate class u8 | 0 u16 |
/// | generation u32 | X25519 key 32 B | relays 3 × u16 | 0 u16 | not before u64 | expires u64 |
/// | signature 64 B |
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// What is signed.
    pub body: TicketBody,
    signature: Signature,
}

impl TicketBody {
    const LEN: usize = 1 + 1 + 2 + 8 + 1 + 1 + 2 + 4 + 32 + 6 + 2 + 8 + 8;

    fn encode(&self) -> Vec<u8> {
        let [first, second, third] = self.relays;
        Writer::with_capacity(Ticket::LEN)
            .u8(VERSION)
            .u8(self.key_id.0)
            .u16(self.pool.0)
            .u64(self.session.0)
            .u8(self.member.number())
            .u8(self.rate_class.0)
            .u16(0)
            .u32(self.generation.0)
            .bytes(&self.key.0)
            .u16(first.0)
            .u16(second.0)
            .u16(third.0)
            .u16(0)
            .u64(self.not_before)
            .u64(self.expires)
            .finish()
    }

    /// Signs the grant; `key` is the one that `key_id` names.
    pub fn sign(self, key: &SigningKey) -> Ticket {
        let signature = sign(key, CONTEXT, &self.encode());
        Ticket { body: self, signature }
    }
}

impl Ticket {
    /// Bytes of a ticket.
    pub const LEN: usize = TicketBody::LEN + Signature::LEN;

    /// The ticket's bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..TicketBody::LEN].copy_from_slice(&self.body.encode());
        bytes[TicketBody::LEN..].copy_from_slice(&self.signature.0);
        bytes
    }

    /// Reads the fields; the signature is not yet checked.
    ///
    /// # Errors
    /// Another version, no such member, reserved bytes that are not 0.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "ticket");
        if reader.u8()? != VERSION {
            return Err(Malformed("ticket version"));
        }
        let key_id = KeyId(reader.u8()?);
        let pool = PoolId(reader.u16()?);
        let session = SessionId(reader.u64()?);
        let member = Member::new(reader.u8()?).ok_or(Malformed("ticket member"))?;
        let rate_class = RateClass(reader.u8()?);
        let reserved = reader.u16()?;
        let generation = Generation(reader.u32()?);
        let key = TunnelKey(reader.array()?);
        let relays = [RelayId(reader.u16()?), RelayId(reader.u16()?), RelayId(reader.u16()?)];
        if reserved != 0 || reader.u16()? != 0 {
            return Err(Malformed("ticket reserved bytes"));
        }
        let (not_before, expires) = (reader.u64()?, reader.u64()?);
        let body = TicketBody {
            key_id,
            pool,
            session,
            member,
            generation,
            rate_class,
            key,
            relays,
            not_before,
            expires,
        };
        Ok(Self { body, signature: Signature(reader.array()?) })
    }

    /// Checks the signature alone; times, pool and relays are the caller's to compare.
    ///
    /// # Errors
    /// Unknown key id, or not what control signed.
    pub fn verify(&self, keys: &(impl SigningKeys + ?Sized)) -> Result<&TicketBody, BadSignature> {
        let key = keys.key(self.body.key_id).ok_or(BadSignature)?;
        let holds = verifies(&key, CONTEXT, &self.body.encode(), &self.signature);
        holds.then_some(&self.body).ok_or(BadSignature)
    }
}

const _: () = assert!(Ticket::LEN <= 160);
