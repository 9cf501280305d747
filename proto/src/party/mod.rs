//! What only members know. Control stores some of it sealed and can neither read nor make it.

mod directory;
mod epoch;
mod invite;
mod server;

pub use directory::{Entry, EntryBody, NAME_LEN_MAX, valid_name};
pub use epoch::{EpochCopy, SealError};
pub use invite::{BadInvite, Invite, InviteKey, SealedSecret};
pub use server::{BadServerAddress, ServerAddress, parse_authority};

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::bytes::{Commitment, PartySecret, TunnelKey};
use crate::ids::{Epoch, SessionId};

/// HKDF-SHA-256 (RFC 5869) of `secret` with `info` = purpose ‖ 0 ‖ context.
fn derive(
    salt: Option<&[u8]>,
    secret: &[u8],
    purpose: &str,
    context: &[u8],
) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(salt, secret)
        .expand_multi_info(&[purpose.as_bytes(), &[0], context], &mut *key)
        .expect("32 bytes are within HKDF's limit");
    key
}

/// What a kick record says of a new epoch's secret (§6.3). HKDF with an empty salt is one-way and
/// free of collisions as SHA-256 is: control learns nothing, and nobody has a second secret for it.
pub fn commitment(secret: &PartySecret, session: SessionId, epoch: Epoch) -> Commitment {
    let context = [&session.0.to_be_bytes()[..], &epoch.0.to_be_bytes()].concat();
    Commitment(*derive(None, &secret.0, "lanrage commitment 1", &context))
}

/// The WireGuard pre-shared key of two members (§7.1): HKDF(secret, session ‖ epoch ‖ both keys,
/// lower first), so that control, which can swap keys but lacks the secret, gets no tunnel.
pub fn pre_shared_key(
    secret: &PartySecret,
    session: SessionId,
    epoch: Epoch,
    one: &TunnelKey,
    other: &TunnelKey,
) -> Zeroizing<[u8; 32]> {
    let (low, high) = if one <= other { (one, other) } else { (other, one) };
    let context = [&session.0.to_be_bytes()[..], &epoch.0.to_be_bytes(), &low.0, &high.0].concat();
    derive(None, &secret.0, "lanrage psk 1", &context)
}
