use ed25519_dalek::SigningKey;

use super::{BadSignature, SigningKeys, sign, verifies};
use crate::bytes::{Commitment, PartySecret, Signature};
use crate::ids::{Epoch, Generation, KeyId, Member, SessionId};
use crate::party::commitment;
use crate::wire::{Malformed, Reader, Writer};

const CONTEXT: &str = "lanrage kick 1";
const VERSION: u8 = 1;

/// Control's word that a member is out, for relays and for the members it tells (§6.3).
///
/// ```text
/// | version u8 | key id u8 | member u8 | kicker u8 | generation u32 | session u64 | epoch u32 |
/// | 0 u32 | issued u64 | commitment 32 B | signature 64 B |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KickRecord {
    /// Which of control's keys signs.
    pub key_id: KeyId,
    /// Who is out.
    pub member: Member,
    /// Who asked for it.
    pub kicker: Member,
    /// The lowest generation of that member number that still holds.
    pub generation: Generation,
    /// The party.
    pub session: SessionId,
    /// The epoch that begins with the kick.
    pub epoch: Epoch,
    /// Seconds since 1970.
    pub issued: u64,
    /// To the secret of `epoch`: no other secret is of it.
    pub commitment: Commitment,
    /// Empty until [`KickRecord::sign`].
    pub signature: Signature,
}

impl KickRecord {
    const BODY_LEN: usize = 4 + 4 + 8 + 4 + 4 + 8 + Commitment::LEN;
    /// Bytes of a record.
    pub const LEN: usize = Self::BODY_LEN + Signature::LEN;

    fn body(&self) -> Vec<u8> {
        Writer::with_capacity(Self::LEN)
            .bytes(&[VERSION, self.key_id.0, self.member.number(), self.kicker.number()])
            .u32(self.generation.0)
            .u64(self.session.0)
            .u32(self.epoch.0)
            .u32(0)
            .u64(self.issued)
            .bytes(&self.commitment.0)
            .finish()
    }

    /// Replaces the signature; `key` is the one that `key_id` names.
    pub fn sign(mut self, key: &SigningKey) -> Self {
        self.signature = sign(key, CONTEXT, &self.body());
        self
    }

    /// The record's bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..Self::BODY_LEN].copy_from_slice(&self.body());
        bytes[Self::BODY_LEN..].copy_from_slice(&self.signature.0);
        bytes
    }

    /// Reads the fields; the signature is not yet checked.
    ///
    /// # Errors
    /// Another version, no such member.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "kick record");
        let [version, key_id, member, kicker] = reader.array()?;
        if version != VERSION {
            return Err(Malformed("kick record version"));
        }
        let member = Member::new(member).ok_or(Malformed("kick record member"))?;
        let kicker = Member::new(kicker).ok_or(Malformed("kick record kicker"))?;
        let generation = Generation(reader.u32()?);
        let session = SessionId(reader.u64()?);
        let epoch = Epoch(reader.u32()?);
        if reader.u32()? != 0 {
            return Err(Malformed("kick record reserved bytes"));
        }
        Ok(Self {
            key_id: KeyId(key_id),
            member,
            kicker,
            generation,
            session,
            epoch,
            issued: reader.u64()?,
            commitment: Commitment(reader.array()?),
            signature: Signature(reader.array()?),
        })
    }

    /// Whether `secret` is the one that this kick's epoch began with.
    pub fn is_of(&self, secret: &PartySecret) -> bool {
        commitment(secret, self.session, self.epoch) == self.commitment
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// Unknown key id, or not what control signed.
    pub fn verify(&self, keys: &(impl SigningKeys + ?Sized)) -> Result<(), BadSignature> {
        let key = keys.key(self.key_id).ok_or(BadSignature)?;
        verifies(&key, CONTEXT, &self.body(), &self.signature).then_some(()).ok_or(BadSignature)
    }
}
