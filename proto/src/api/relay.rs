use std::fmt;
use std::net::{SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::bytes::{
    DeviceKey, RootHash, Signature, Token, TunnelKey, decode_base64, encode_base64,
};
use crate::ids::{Generation, Member, PoolId, RelayId, SessionId};
use crate::map::{SignedMap, TlsAccess};
use crate::signed::RelayCertificate;

/// What an operator gives a new relay once: `{control's root hash, one-time secret}` in base64.
///
/// Text form: `lanrage-relay-1.` and 64 bytes of base64.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolmentToken {
    /// Pins control.
    pub root: RootHash,
    /// Spent by the first enrolment; control keeps its hash.
    pub secret: Token,
}

const ENROLMENT_PREFIX: &str = "lanrage-relay-1.";

/// The text is no enrolment token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an enrolment token is {ENROLMENT_PREFIX} and 86 characters: copy it whole, or get one with \
     `lanrage-control relay token`"
)]
pub struct BadEnrolmentToken;

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnrolmentToken(secret)")
    }
}

impl fmt::Display for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.root.0);
        bytes[32..].copy_from_slice(&self.secret.0);
        write!(f, "{ENROLMENT_PREFIX}{}", encode_base64(&bytes))
    }
}

impl FromStr for EnrolmentToken {
    type Err = BadEnrolmentToken;

    fn from_str(text: &str) -> Result<Self, BadEnrolmentToken> {
        let bytes = text.trim().strip_prefix(ENROLMENT_PREFIX).and_then(decode_base64::<64>);
        let bytes = bytes.ok_or(BadEnrolmentToken)?;
        let (root, secret) = bytes.split_at(32);
        Ok(Self {
            root: RootHash(root.try_into().map_err(|_| BadEnrolmentToken)?),
            secret: Token(secret.try_into().map_err(|_| BadEnrolmentToken)?),
        })
    }
}

/// A relay asks to join the pool (§10.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The one-time secret of the [`EnrolmentToken`].
    pub token: Token,
    /// What operators call the relay.
    pub name: String,
    /// Ed25519: proves the relay on its later streams.
    pub identity: DeviceKey,
    /// By the identity key over this connection's channel binding, with
    /// [`super::ENROLMENT_PROOF_CONTEXT`].
    pub proof: Signature,
    /// X25519: its static key towards clients.
    pub key: TunnelKey,
    /// Unicast address for clients.
    pub ipv4: Option<SocketAddrV4>,
    /// Unicast address for clients.
    pub ipv6: Option<SocketAddrV6>,
}

/// Answer to [`Enrolment`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The relay's number.
    pub relay: RelayId,
    /// The relay's pool.
    pub pool: PoolId,
    /// Control's clock.
    pub now: u64,
}

/// What a relay says on its stream: one [`RelayUp::Prove`] first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RelayUp {
    /// Who is speaking.
    Prove {
        /// As enrolled.
        relay: RelayId,
        /// By the relay's identity key over this connection's channel binding, with
        /// [`super::RELAY_PROOF_CONTEXT`].
        proof: Signature,
        /// Its addresses may have changed since it enrolled.
        ipv4: Option<SocketAddrV4>,
        /// See `ipv4`.
        ipv6: Option<SocketAddrV6>,
        /// Whether and how it serves members whose network blocks UDP.
        #[serde(default)]
        tls: Option<TlsAccess>,
        /// The last revocation it has; 0 asks for a snapshot.
        cursor: u64,
    },
    /// Every 5 s.
    Heartbeat(Heartbeat),
}

/// A relay's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Leases now.
    pub leases: u64,
    /// Sessions now.
    pub sessions: u64,
    /// Whether it takes no new leases.
    pub draining: bool,
    /// The last revocation it has applied and persisted.
    pub cursor: u64,
    /// The program's version.
    pub version: String,
    /// The relay's clock.
    pub now: u64,
}

/// What control says to a relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RelayDown {
    /// The relay's own certificate, renewed before it expires.
    Certificate {
        /// Goes into CHALLENGE.
        #[serde(with = "crate::map::certificate")]
        certificate: RelayCertificate,
    },
    /// The relay map: the keys that sign tickets, and the other relays.
    Map {
        /// Signed by the root key.
        map: SignedMap,
    },
    /// All revocations that still matter; replaces what the relay has.
    Snapshot {
        /// Where the deltas go on from.
        cursor: u64,
        /// Minimum generations.
        revocations: Vec<Revocation>,
    },
    /// One more revocation.
    Revoke {
        /// Of this revocation.
        cursor: u64,
        /// Minimum generation.
        revocation: Revocation,
    },
    /// Control's clock, every 5 s: a stream without it for 15 s is dead.
    Tick {
        /// Control's clock.
        now: u64,
    },
}

/// Tickets and leases of this member below this generation do not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The party.
    pub session: SessionId,
    /// The member number.
    pub member: Member,
    /// The lowest generation that holds.
    pub generation: Generation,
    /// After this no ticket below that generation can bind any more, even without control.
    pub forget_after: u64,
}
