use std::fmt;
use std::str::FromStr;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use rand_core::RngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::SealError;
use super::derive;
use crate::bytes::{Blob, InviteHash, PartySecret, RootHash, decode_base64, encode_base64};
use crate::ids::{Epoch, SessionId};

const SCHEME: &str = "lanrage://";
const VERSION: u8 = 1;
const NONCE_LEN: usize = 24;
const CHECKSUM_LEN: usize = 4;
const FRAGMENT_LEN: usize = 1 + 32 + 32 + CHECKSUM_LEN;
/// The port of control when an invite names none.
pub(super) const DEFAULT_PORT: u16 = 443;

/// The random key of one invite: opens the party's secret as long as control keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteKey(pub Zeroizing<[u8; 32]>);

impl fmt::Debug for InviteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteKey(secret)")
    }
}

impl InviteKey {
    /// What control knows the invite by.
    pub fn hash(&self) -> InviteHash {
        InviteHash(*derive(None, &*self.0, "lanrage invite hash 1", &[]))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*derive(None, &*self.0, "lanrage invite seal 1", &[])).into())
    }

    /// Seals a party's secret for whoever holds this key; bound to the party it is for.
    pub fn seal(
        &self,
        session: SessionId,
        epoch: Epoch,
        secret: &PartySecret,
        rng: &mut impl RngCore,
    ) -> SealedSecret {
        let plain = Zeroizing::new([&epoch.0.to_be_bytes()[..], &secret.0].concat());
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let payload = Payload { msg: &plain, aad: &session.0.to_be_bytes() };
        let sealed = self
            .cipher()
            .encrypt(&nonce.into(), payload)
            .expect("36 bytes are below the cipher's limit");
        SealedSecret(Blob([&nonce[..], &sealed].concat()))
    }

    /// # Errors
    /// Another key, another party, or not whole.
    pub fn open(
        &self,
        session: SessionId,
        sealed: &SealedSecret,
    ) -> Result<(Epoch, PartySecret), SealError> {
        let (nonce, sealed) = sealed.0.0.split_first_chunk::<NONCE_LEN>().ok_or(SealError)?;
        let payload = Payload { msg: sealed, aad: &session.0.to_be_bytes() };
        let plain = self
            .cipher()
            .decrypt(nonce.into(), payload)
            .map(Zeroizing::new)
            .map_err(|_| SealError)?;
        let (epoch, secret) = plain.split_first_chunk().ok_or(SealError)?;
        let secret = secret.try_into().map_err(|_| SealError)?;
        Ok((Epoch(u32::from_be_bytes(*epoch)), PartySecret(secret)))
    }
}

/// {epoch, party secret} under an [`InviteKey`]: what control keeps of an invite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedSecret(pub Blob);

/// What a user gives to a friend (§7.4): `lanrage://host[:port]/#fragment`.
///
/// The fragment is base64 of {version, invite key, SHA-256 of control's root key, checksum}.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Control's host name or address, as in a URL (IPv6 in brackets).
    pub host: String,
    /// Control's port.
    pub port: u16,
    /// Opens the secret.
    pub key: InviteKey,
    /// Pins control.
    pub root: RootHash,
}

/// What is wrong with the text of an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadInvite {
    /// No `lanrage://host/#…`.
    #[error("an invite looks like lanrage://host/#…; ask for it again")]
    Shape,
    /// The host or port cannot be one.
    #[error("the invite names no usable host; ask for it again")]
    Host,
    /// Made by a newer program.
    #[error("the invite has version {0}, this program knows version {VERSION}: update LANrage")]
    Version(u8),
    /// Characters are missing or wrong.
    #[error("the invite is damaged (a character is missing or wrong): copy it whole")]
    Damaged,
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fragment = Zeroizing::new([0; FRAGMENT_LEN]);
        fragment[0] = VERSION;
        fragment[1..33].copy_from_slice(&*self.key.0);
        fragment[33..65].copy_from_slice(&self.root.0);
        let check = checksum(&fragment[..65]);
        fragment[65..].copy_from_slice(&check);
        let fragment = Zeroizing::new(encode_base64(&*fragment));
        match self.port {
            DEFAULT_PORT => write!(f, "{SCHEME}{}/#{}", self.host, *fragment),
            port => write!(f, "{SCHEME}{}:{port}/#{}", self.host, *fragment),
        }
    }
}

impl FromStr for Invite {
    type Err = BadInvite;

    fn from_str(text: &str) -> Result<Self, BadInvite> {
        let rest = text.trim().strip_prefix(SCHEME).ok_or(BadInvite::Shape)?;
        let (authority, fragment) = rest.split_once("/#").ok_or(BadInvite::Shape)?;
        let (host, port) = split_authority(authority).ok_or(BadInvite::Host)?;
        let bytes = decode_base64::<FRAGMENT_LEN>(fragment).map(Zeroizing::new);
        let bytes = bytes.ok_or(BadInvite::Damaged)?;
        let (content, check) = bytes.split_at(FRAGMENT_LEN - CHECKSUM_LEN);
        if checksum(content) != check {
            return Err(BadInvite::Damaged);
        }
        if content[0] != VERSION {
            return Err(BadInvite::Version(content[0]));
        }
        let key = content[1..33].try_into().map_err(|_| BadInvite::Damaged)?;
        let root = content[33..].try_into().map_err(|_| BadInvite::Damaged)?;
        Ok(Self { host, port, key: InviteKey(Zeroizing::new(key)), root: RootHash(root) })
    }
}

/// Tells a typing error from a spent invite without asking control.
pub(super) fn checksum(content: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest = Sha256::digest(content);
    digest[..CHECKSUM_LEN].try_into().expect("a digest is longer than a checksum")
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(super) fn split_authority(authority: &str) -> Option<(String, u16)> {
    let bracket = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[bracket..].rfind(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(bracket + colon);
            let digits = port[1..].bytes().all(|b| b.is_ascii_digit());
            (host, port[1..].parse().ok().filter(|port| digits && *port != 0)?)
        }
        None => (authority, DEFAULT_PORT),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&host.len())
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        }
    };
    valid.then(|| (host.to_owned(), port))
}
