//! One directory, one relay. Four files, each replaced whole or not at all:
//!
//! ```text
//! keys     made at the first start, never changed
//! relay    which relay of which pool this is, since it enrolled
//! control  the certificate, relay map and revocations that control sent last
//! bans     whom the operator does not serve
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use ed25519_dalek::SigningKey;
use lanrage_proto::api::{EnrolmentToken, Revocation};
use lanrage_proto::bytes::SecretKey;
use lanrage_proto::mac::mac32;
use lanrage_proto::map::{RelayMap, SignedMap, optional_certificate};
use lanrage_proto::signed::RelayCertificate;
use lanrage_proto::{PoolId, RelayId, RootHash, TunnelKey};
use lanrage_state::{Lock, StateError, create_private_dir, read, remove, write};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::admin::api::BanRow;

/// An enrolment, a first map and certificate, and some dozens of revocations, in bytes.
const ROOM: usize = 16 << 10;

/// The relay's own secrets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Keys {
    /// Ed25519 seed: proves the relay to control.
    identity: SecretKey,
    /// X25519 private key: the handshakes'.
    key: SecretKey,
    /// Makes the leases' control keys.
    secret: SecretKey,
    /// Seals resumption tickets.
    resumption: SecretKey,
}

/// Which relay this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// SHA-256 of control's root key.
    pub root: RootHash,
    /// Its number.
    pub relay: RelayId,
    /// Its pool.
    pub pool: PoolId,
    /// SHA-256 of the token's secret by which it enrolled last. A removed relay must not come back
    /// by the token that it came with.
    #[serde(default)]
    pub token: Option<[u8; 32]>,
}

/// What control said last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Goes into CHALLENGE.
    #[serde(with = "optional_certificate")]
    pub certificate: Option<RelayCertificate>,
    /// The map as signed.
    pub map: Option<SignedMap>,
    /// The last revocation.
    pub cursor: u64,
    /// All revocations that matter.
    pub revocations: Vec<Revocation>,
}

/// An open state directory; nobody else has it while this value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    lock: Lock,
}

impl StateDir {
    /// Opens the directory, or makes it.
    ///
    /// # Errors
    /// Not accessible, or in use.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        create_private_dir(path)?;
        Ok(Self { path: path.to_owned(), lock: Lock::take(path)? })
    }

    /// The directory of the process that this one takes over from, by its lock.
    ///
    /// # Errors
    /// It is another directory.
    pub fn adopt(path: &Path, lock: OwnedFd) -> Result<Self, StateError> {
        Ok(Self { path: path.to_owned(), lock: Lock::adopt(path, lock)? })
    }

    /// The directory's lock.
    pub const fn lock(&self) -> &Lock {
        &self.lock
    }

    /// The relay's keys; made when the directory is new.
    ///
    /// # Errors
    /// Not accessible, newer, or damaged; also when the keys alone are gone.
    pub fn keys(&self) -> Result<Keys, StateError> {
        let path = self.path.join("keys");
        if let Some(keys) = read(&path)? {
            return Ok(keys);
        }
        if self.enrolment()?.is_some() {
            let why = "it is missing, and the relay has enrolled with it".to_owned();
            return Err(StateError::Corrupt { path, why });
        }
        let random = || {
            let mut bytes = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *bytes)
                .map_err(|error| StateError::io("fill", &path)(io::Error::other(error)))?;
            Ok(SecretKey(bytes))
        };
        let keys =
            Keys { identity: random()?, key: random()?, secret: random()?, resumption: random()? };
        write(&path, &keys)?;
        Ok(keys)
    }

    /// Which relay this is, once it has enrolled.
    ///
    /// # Errors
    /// Not accessible, newer, or damaged.
    pub fn enrolment(&self) -> Result<Option<Enrolment>, StateError> {
        enrolment_in(&self.path)
    }

    /// Keeps an enrolment. What control said to the relay that this was before stays as far as it
    /// holds for every relay of the pool.
    ///
    /// # Errors
    /// Not accessible.
    pub fn set_enrolment(&self, enrolment: &Enrolment) -> Result<(), StateError> {
        if let Some(before) = self.enrolment()? {
            let mut told = Told::default();
            if (before.root, before.pool) == (enrolment.root, enrolment.pool) {
                told = self.told(&before.root)?;
                if before.relay != enrolment.relay {
                    told.certificate = None;
                }
            }
            self.set_told(&told)?;
        }
        write(&self.path.join("relay"), enrolment)
    }

    /// Whether there is room for what control is about to say.
    ///
    /// # Errors
    /// There is not, or the directory is not accessible.
    pub fn check_room(&self) -> Result<(), StateError> {
        let path = self.path.join("room");
        write(&path, &" ".repeat(ROOM))?;
        remove(&path)
    }

    /// What control said last; the map is checked against `root`.
    ///
    /// # Errors
    /// Not accessible, newer, or damaged.
    pub fn told(&self, root: &RootHash) -> Result<Told, StateError> {
        let path = self.path.join("control");
        let told: Told = read(&path)?.unwrap_or_default();
        if let Some(Err(error)) = told.map.as_ref().map(|map| map.verify(root)) {
            return Err(StateError::Corrupt { path, why: error.to_string() });
        }
        Ok(told)
    }

    /// Whom the operator does not serve.
    ///
    /// # Errors
    /// Not accessible, newer, or damaged.
    pub(crate) fn bans(&self) -> Result<Vec<BanRow>, StateError> {
        Ok(read(&self.path.join("bans"))?.unwrap_or_default())
    }

    /// Keeps whom the operator does not serve.
    ///
    /// # Errors
    /// Not accessible.
    pub(crate) fn set_bans(&self, bans: &[BanRow]) -> Result<(), StateError> {
        write(&self.path.join("bans"), &bans)
    }

    /// When what control said was last written, in seconds since 1970; 0 if never.
    pub(crate) fn told_at(&self) -> u64 {
        let written = std::fs::metadata(self.path.join("control")).and_then(|file| file.modified());
        let since = written.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |since| since.as_secs())
    }

    /// Keeps what control said.
    ///
    /// # Errors
    /// Not accessible.
    pub fn set_told(&self, told: &Told) -> Result<(), StateError> {
        write(&self.path.join("control"), told)
    }
}

/// Which relay a directory is of, while another process may have it.
///
/// # Errors
/// Not accessible, newer, or damaged.
pub fn enrolment_in(dir: &Path) -> Result<Option<Enrolment>, StateError> {
    read(&dir.join("relay"))
}

impl Enrolment {
    /// Whether it came by this token.
    pub fn is_by(&self, token: &EnrolmentToken) -> bool {
        self.token == Some(token_hash(token))
    }
}

/// See [`Enrolment::token`].
pub fn token_hash(token: &EnrolmentToken) -> [u8; 32] {
    Sha256::digest(token.secret.0).into()
}

impl Keys {
    /// Proves the relay to control.
    pub fn identity(&self) -> SigningKey {
        SigningKey::from_bytes(&self.identity.0)
    }

    /// Of the TLS certificate that streams see. Made of the identity's seed, so that it is there
    /// wherever that is.
    pub fn stream_key(&self) -> SigningKey {
        SigningKey::from_bytes(&mac32(&self.identity.0, &[b"lanrage stream key"]))
    }

    /// The handshakes' public key.
    pub fn tunnel_key(&self) -> TunnelKey {
        TunnelKey(PublicKey::from(&StaticSecret::from(*self.key.0)).to_bytes())
    }

    /// Agrees with other relays on keys.
    pub(crate) fn roster(&self, enrolment: &Enrolment) -> lanrage_relay_core::mesh::Roster {
        let key = (*self.key.0).into();
        lanrage_relay_core::mesh::Roster::new(enrolment.relay, enrolment.pool, &key)
    }

    /// What the binder needs.
    pub fn binder_identity(&self, enrolment: &Enrolment) -> lanrage_relay_core::Identity {
        lanrage_relay_core::Identity {
            relay: enrolment.relay,
            pool: enrolment.pool,
            key: (*self.key.0).into(),
            secret: (*self.secret.0).into(),
            resumption: (*self.resumption.0).into(),
        }
    }
}

impl Told {
    /// The map, whose signature was checked when it was taken.
    pub fn relay_map(&self, root: &RootHash) -> Option<RelayMap> {
        self.map.as_ref()?.verify(root).ok()
    }
}
