use chacha20poly1305::aead::Aead;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use rand_core::RngCore;
use serde::{Deserialize, Serialize};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::derive;
use crate::bytes::{Blob, PartySecret, TunnelKey};
use crate::ids::{Epoch, Member, SessionId};

const NONCE_LEN: usize = 24;

/// A sealed box does not open: it is not for this key, not from whom it says, or not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed secret does not open")]
pub struct SealError;

/// A new epoch's secret, left with control for one member that may be off line (§7.3).
///
/// The key needs the Diffie–Hellman secret of kicker and member, which the kicked member lacks,
/// and the old party secret, which control lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochCopy {
    /// The epoch the secret is of; the one before it seals.
    pub epoch: Epoch,
    /// Who made the epoch.
    pub from: Member,
    /// Its WireGuard key.
    pub from_key: TunnelKey,
    /// Whom the copy is for.
    pub to: Member,
    /// XChaCha20-Poly1305 nonce and ciphertext.
    pub sealed: Blob,
}

/// The two ends of a copy.
#[derive(Clone, Copy, Debug)]
struct Ends<'a> {
    session: SessionId,
    epoch: Epoch,
    from: &'a TunnelKey,
    to: &'a TunnelKey,
}

impl Ends<'_> {
    fn cipher(
        self,
        private: &StaticSecret,
        other: &TunnelKey,
        old: &PartySecret,
    ) -> Result<XChaCha20Poly1305, SealError> {
        let shared = private.diffie_hellman(&PublicKey::from(other.0));
        if !shared.was_contributory() {
            return Err(SealError);
        }
        let context = [
            &self.session.0.to_be_bytes()[..],
            &self.epoch.0.to_be_bytes(),
            &self.from.0,
            &self.to.0,
        ]
        .concat();
        let key = derive(Some(&old.0), shared.as_bytes(), "lanrage epoch 1", &context);
        Ok(XChaCha20Poly1305::new((&*key).into()))
    }
}

impl EpochCopy {
    /// Seals `new`, the secret of `epoch`, from the holder of `private` to one member.
    ///
    /// # Errors
    /// The member's key is a low-order point: no key of an honest device.
    #[expect(clippy::too_many_arguments, reason = "each is a distinct fact of the copy")]
    pub fn seal(
        session: SessionId,
        epoch: Epoch,
        from: Member,
        private: &StaticSecret,
        (to, to_key): (Member, &TunnelKey),
        old: &PartySecret,
        new: &PartySecret,
        rng: &mut impl RngCore,
    ) -> Result<Self, SealError> {
        let from_key = TunnelKey(PublicKey::from(private).to_bytes());
        let ends = Ends { session, epoch, from: &from_key, to: to_key };
        let mut sealed = vec![0; NONCE_LEN];
        rng.fill_bytes(&mut sealed);
        let nonce: [u8; NONCE_LEN] = sealed[..].try_into().expect("just made");
        let cipher = ends.cipher(private, to_key, old)?;
        sealed.extend(cipher.encrypt(&nonce.into(), &new.0[..]).map_err(|_| SealError)?);
        Ok(Self { epoch, from, from_key, to, sealed: Blob(sealed) })
    }

    /// Opens a copy for the holder of `private`; `from_key` must be the kicker's key in the
    /// directory of the epoch before, which the caller has checked.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn open(
        &self,
        session: SessionId,
        private: &StaticSecret,
        old: &PartySecret,
    ) -> Result<PartySecret, SealError> {
        let to_key = TunnelKey(PublicKey::from(private).to_bytes());
        let ends = Ends { session, epoch: self.epoch, from: &self.from_key, to: &to_key };
        let (nonce, sealed) = self.sealed.0.split_first_chunk::<NONCE_LEN>().ok_or(SealError)?;
        let secret = ends
            .cipher(private, &self.from_key, old)?
            .decrypt(nonce.into(), sealed)
            .map(Zeroizing::new)
            .map_err(|_| SealError)?;
        Ok(PartySecret(secret[..].try_into().map_err(|_| SealError)?))
    }
}
