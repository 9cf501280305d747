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
/// No epoch: the first is 1.
const NONE: Epoch = Epoch(0);

/// A sealed box does not open: it is not for this key, not from whom it says, or not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed secret does not open")]
pub struct SealError;

/// A new epoch's secret, left with control for one member that may be off line (§7.3).
///
/// The key needs the Diffie–Hellman secret of kicker and member, which the kicked member lacks,
/// and the secret of the epoch it is sealed under, which control lacks. A kicker without that
/// secret seals under none; then the receiver must have the kicker's key from elsewhere than
/// control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochCopy {
    /// The epoch the secret is of.
    pub epoch: Epoch,
    /// The epoch whose secret seals it too; 0 in JSON for none.
    #[serde(with = "zero_is_none")]
    pub under: Option<Epoch>,
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
    under: Option<(Epoch, &'a PartySecret)>,
    from: &'a TunnelKey,
    to: &'a TunnelKey,
}

impl Ends<'_> {
    fn cipher(
        self,
        private: &StaticSecret,
        other: &TunnelKey,
    ) -> Result<XChaCha20Poly1305, SealError> {
        let shared = private.diffie_hellman(&PublicKey::from(other.0));
        if !shared.was_contributory() {
            return Err(SealError);
        }
        // A salt of zeros is HKDF's empty one: the epoch tells them apart.
        let (under, salt) = self.under.map_or((NONE, None), |(epoch, old)| (epoch, Some(&old.0)));
        let context = [
            &self.session.0.to_be_bytes()[..],
            &self.epoch.0.to_be_bytes(),
            &under.0.to_be_bytes(),
            &self.from.0,
            &self.to.0,
        ]
        .concat();
        let key =
            derive(salt.map(<[u8; 32]>::as_slice), shared.as_bytes(), "lanrage epoch 1", &context);
        Ok(XChaCha20Poly1305::new((&*key).into()))
    }
}

impl EpochCopy {
    /// Seals the secret of a new epoch, `new`, from one member to another: under the kicker's own
    /// epoch and its secret, or under none when the kicker lacks the newest.
    ///
    /// # Errors
    /// The receiver's key is a low-order point: no key of an honest device.
    pub fn seal(
        session: SessionId,
        (epoch, new): (Epoch, &PartySecret),
        under: Option<(Epoch, &PartySecret)>,
        (from, private): (Member, &StaticSecret),
        (to, to_key): (Member, &TunnelKey),
        rng: &mut impl RngCore,
    ) -> Result<Self, SealError> {
        let from_key = TunnelKey(PublicKey::from(private).to_bytes());
        let ends = Ends { session, epoch, under, from: &from_key, to: to_key };
        let mut sealed = vec![0; NONCE_LEN];
        rng.fill_bytes(&mut sealed);
        let nonce: [u8; NONCE_LEN] = sealed[..].try_into().expect("just made");
        let cipher = ends.cipher(private, to_key)?;
        sealed.extend(cipher.encrypt(&nonce.into(), &new.0[..]).map_err(|_| SealError)?);
        let under = under.map(|(epoch, _)| epoch);
        Ok(Self { epoch, under, from, from_key, to, sealed: Blob(sealed) })
    }

    /// Opens a copy for the holder of `private`, who is in the epoch `current` with its secret. The
    /// caller checks the secret against the kick's commitment, and `from_key` against its directory
    /// when the copy is under no epoch.
    ///
    /// # Errors
    /// Sealed under another epoch; see [`SealError`].
    pub fn open(
        &self,
        session: SessionId,
        private: &StaticSecret,
        current: (Epoch, &PartySecret),
    ) -> Result<PartySecret, SealError> {
        if self.under.is_some_and(|under| under != current.0) {
            return Err(SealError);
        }
        let under = self.under.map(|_| current);
        let to_key = TunnelKey(PublicKey::from(private).to_bytes());
        let ends = Ends { session, epoch: self.epoch, under, from: &self.from_key, to: &to_key };
        let (nonce, sealed) = self.sealed.0.split_first_chunk::<NONCE_LEN>().ok_or(SealError)?;
        let secret = ends
            .cipher(private, &self.from_key)?
            .decrypt(nonce.into(), sealed)
            .map(Zeroizing::new)
            .map_err(|_| SealError)?;
        Ok(PartySecret(secret[..].try_into().map_err(|_| SealError)?))
    }
}

mod zero_is_none {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Epoch, NONE};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(epoch: &Option<Epoch>, s: S) -> Result<S::Ok, S::Error> {
        epoch.unwrap_or(NONE).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Epoch>, D::Error> {
        Ok(Some(Epoch::deserialize(d)?).filter(|epoch| *epoch != NONE))
    }
}
