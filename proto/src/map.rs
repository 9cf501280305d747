use std::num::NonZeroU16;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::bytes::{DeviceKey, RootHash, Signature, decode_base64, encode_base64};
use crate::ids::{KeyId, PoolId, RelayId};
use crate::signed::{RelayCertificate, SigningKeys, sign, verifies};

const CONTEXT: &str = "lanrage map 1";

/// SHA-256 of control's root public key.
pub fn root_hash(root: &DeviceKey) -> RootHash {
    RootHash(Sha256::digest(root.0).into())
}

/// The relay map as control sends it and clients cache it (§8): the exact text that was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedMap {
    /// Control's root key; its hash is in every invite.
    pub root: DeviceKey,
    /// A [`RelayMap`] in JSON.
    pub map: String,
    /// By the root key, over `map`.
    pub signature: Signature,
}

/// The relays of a pool and the keys control signs with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayMap {
    /// Grows with every change and every start of control, and is never below the time; an older
    /// map never replaces a newer one.
    pub serial: u64,
    /// Seconds since 1970.
    pub issued: u64,
    /// The pool of all relays here.
    pub pool: PoolId,
    /// Keys that sign tickets, certificates and kicks; up to three.
    pub signing_keys: Vec<SigningKeyEntry>,
    /// By ascending id.
    pub relays: Vec<RelayEntry>,
}

/// One of control's signing keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKeyEntry {
    /// What tickets name it by.
    pub id: KeyId,
    /// Ed25519 public key.
    pub key: DeviceKey,
}

/// One relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayEntry {
    /// What operators call it.
    pub name: String,
    /// Id, key and addresses, signed.
    #[serde(with = "certificate")]
    pub certificate: RelayCertificate,
    /// How it is reached where UDP is blocked, when it offers that.
    #[serde(default)]
    pub tls: Option<TlsAccess>,
}

/// Where a relay takes datagrams over TLS, and by which key it is known there (§11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsAccess {
    /// TCP port at each unicast address of the relay's certificate.
    pub port: NonZeroU16,
    /// Ed25519 public key of the relay's TLS certificate.
    pub key: DeviceKey,
}

/// Why a map is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMap {
    /// Another root key than the pinned one.
    #[error("the relay map is from another server than the one the invite names")]
    OtherRoot,
    /// Not what the root key signed.
    #[error("the relay map's signature does not hold")]
    BadSignature,
    /// Signed, but not to be read.
    #[error("the relay map cannot be read: update LANrage")]
    Unreadable,
}

impl RelayMap {
    /// Signs the map with the root key.
    pub fn sign(&self, root: &SigningKey) -> SignedMap {
        let map = serde_json::to_string(self).expect("a map has string keys only");
        SignedMap {
            root: DeviceKey(root.verifying_key().to_bytes()),
            signature: sign(root, CONTEXT, map.as_bytes()),
            map,
        }
    }

    /// The entry of a relay.
    pub fn relay(&self, id: RelayId) -> Option<&RelayEntry> {
        self.relays.iter().find(|entry| entry.certificate.relay == id)
    }
}

impl SigningKeys for RelayMap {
    fn key(&self, id: KeyId) -> Option<[u8; 32]> {
        self.signing_keys.iter().find(|entry| entry.id == id).map(|entry| entry.key.0)
    }
}

impl SignedMap {
    /// Checks the map against the pinned root key.
    ///
    /// # Errors
    /// See [`BadMap`].
    pub fn verify(&self, pinned: &RootHash) -> Result<RelayMap, BadMap> {
        if root_hash(&self.root) != *pinned {
            return Err(BadMap::OtherRoot);
        }
        if !verifies(&self.root.0, CONTEXT, self.map.as_bytes(), &self.signature) {
            return Err(BadMap::BadSignature);
        }
        serde_json::from_str(&self.map).map_err(|_| BadMap::Unreadable)
    }
}

/// A certificate in JSON: its bytes in base64.
pub(crate) mod certificate {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::{RelayCertificate, decode_base64, encode_base64};

    pub(crate) fn serialize<S: Serializer>(
        certificate: &RelayCertificate,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode_base64(&certificate.encode()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<RelayCertificate, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        decode_base64(&text)
            .and_then(|bytes| RelayCertificate::decode(&bytes).ok())
            .ok_or_else(|| de::Error::custom("expected a relay certificate in base64"))
    }
}

/// A certificate in JSON where there may be none: its bytes in base64, or null.
pub mod optional_certificate {
    use serde::{Deserialize, Deserializer, Serialize as _, Serializer};

    use super::RelayCertificate;

    /// For `#[serde(with)]`.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(
        certificate: &Option<RelayCertificate>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        certificate.map(Wrapped).serialize(serializer)
    }

    /// For `#[serde(with)]`.
    ///
    /// # Errors
    /// Not a certificate.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<RelayCertificate>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Wrapped(#[serde(with = "super::certificate")] RelayCertificate);
}
