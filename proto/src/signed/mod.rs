//! What control signs with its signing keys. Every signature covers a context string, a zero byte
//! and the fields before the signature, so that no signed thing can pass for another.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::bytes::Signature;
use crate::ids::KeyId;

mod certificate;
mod kick;
mod ticket;

pub use certificate::RelayCertificate;
pub use kick::KickRecord;
pub use ticket::{Ticket, TicketBody};

/// Control's public signing keys, as the relay map lists them.
pub trait SigningKeys {
    /// The Ed25519 public key of that id, whether or not its time has come.
    fn key(&self, id: KeyId) -> Option<[u8; 32]>;
}

impl SigningKeys for [(KeyId, [u8; 32])] {
    fn key(&self, id: KeyId) -> Option<[u8; 32]> {
        self.iter().find(|(key_id, _)| *key_id == id).map(|(_, key)| *key)
    }
}

/// A signature does not hold: the key is unknown, or the bytes are not what was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not hold")]
pub struct BadSignature;

fn signed_bytes(context: &str, message: &[u8]) -> Vec<u8> {
    [context.as_bytes(), &[0], message].concat()
}

/// Signs `context ‖ 0 ‖ message` (RFC 8032 Ed25519).
pub fn sign(key: &SigningKey, context: &str, message: &[u8]) -> Signature {
    Signature(key.sign(&signed_bytes(context, message)).to_bytes())
}

/// Checks a signature made by [`sign`]; small-order keys and signatures that are not canonical fail.
pub fn verifies(key: &[u8; 32], context: &str, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    VerifyingKey::from_bytes(key)
        .is_ok_and(|key| key.verify_strict(&signed_bytes(context, message), &signature).is_ok())
}
