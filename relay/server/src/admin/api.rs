use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::str::FromStr;

use lanrage_proto::{Member, SessionId, TunnelKey};
use lanrage_relay_core::KeyPrefix;
use serde::{Deserialize, Serialize};

use crate::config::GsoSetting;

/// Paths, all `POST` with a JSON object, `{}` where nothing need be said.
pub mod path {
    /// [`super::Status`].
    pub const STATUS: &str = "/v1/status";
    /// [`super::Upgraded`].
    pub const UPGRADE: &str = "/v1/upgrade";
    /// [`super::Page`] of [`super::SessionRow`], by number.
    pub const SESSIONS: &str = "/v1/sessions";
    /// [`super::Page`] of [`super::LeaseRow`], in the table's order.
    pub const LEASES: &str = "/v1/leases";
    /// [`super::ShardRow`]s.
    pub const SHARDS: &str = "/v1/shards";
    /// [`super::BanRow`]s.
    pub const BANS: &str = "/v1/bans";
    /// Takes a [`super::Subject`]; [`super::Banned`].
    pub const BAN: &str = "/v1/ban";
    /// Takes a [`super::Subject`].
    pub const UNBAN: &str = "/v1/unban";
    /// [`super::CapRow`]s.
    pub const CAPS: &str = "/v1/caps";
    /// Takes a [`super::CapRow`], which lifts the cap if it says no figure.
    pub const CAP: &str = "/v1/cap";
    /// Takes a [`super::Drain`]; [`super::Draining`].
    pub const DRAIN: &str = "/v1/drain";
    /// Ends a drain.
    pub const UNDRAIN: &str = "/v1/undrain";
    /// Takes and gives a [`super::Log`].
    pub const LOG: &str = "/v1/log";
    /// Takes and gives a [`super::Gso`].
    pub const GSO: &str = "/v1/gso";
}

/// A request without particulars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// The body of every answer but 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, and what to do.
    pub error: String,
}

/// Another process serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The new process.
    pub pid: u32,
}

/// The relay as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The relay's process.
    pub pid: u32,
    /// Its number; none before it has enrolled.
    pub relay: Option<u16>,
    /// Its pool's number.
    pub pool: Option<u16>,
    /// Since its start.
    pub uptime_s: u64,
    /// How shards talk to the kernel.
    pub backend: String,
    /// Why `/readyz` says no; none if it says yes.
    pub not_ready: Option<String>,
    /// Whether the stream from control lives.
    pub control_connected: bool,
    /// Leases that are their members' own.
    pub leases: u64,
    /// Leases that no frame has used yet.
    pub leases_pending: u64,
    /// Leases there is room for.
    pub leases_capacity: u64,
    /// Sessions with a lease.
    pub sessions: u64,
    /// The drain under way.
    pub draining: Option<Draining>,
    /// Keys and sessions that are not served.
    pub bans: usize,
    /// What waits for the binder.
    pub queues: Queues,
    /// The filter of the log; none where this program does not log.
    pub log: Option<String>,
    /// Segmentation offload.
    pub gso: GsoSetting,
}

/// What waits for the binder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queues {
    /// Leases that a first frame has used.
    pub activations: usize,
    /// Datagrams of those who have or had a lease.
    pub established: usize,
    /// HELLOs of anybody.
    pub hellos: usize,
    /// BINDs of anybody.
    pub binds: usize,
}

/// Asks for a part of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageOf<K> {
    /// Goes on from what an answer said; from the beginning if none.
    pub after: Option<K>,
    /// Rows, of which the relay gives [`ROWS_MAX`] at most.
    pub limit: usize,
}

/// Rows in one answer, at most.
pub const ROWS_MAX: usize = 4_096;

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T, K> {
    /// What there is.
    pub rows: Vec<T>,
    /// Where to go on; none at the end.
    pub next: Option<K>,
}

/// Asks for leases: of one session, or a part of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leases {
    /// All of this session; `page` says nothing then.
    pub session: Option<SessionId>,
    /// By slot of the table.
    pub page: PageOf<u32>,
}

/// A session and what its leases add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Its number.
    pub session: SessionId,
    /// Leases that are their members' own.
    pub leases: u64,
    /// Leases that no frame has used yet.
    pub pending: u64,
    /// Frames received within the leases' rates, since each began.
    pub packets: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Frames that went nowhere: see [`LeaseRow::dropped`].
    pub dropped: u64,
    /// Since the last frame of any.
    pub idle_ms: u64,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// Whose party.
    pub session: SessionId,
    /// Who.
    pub member: Member,
    /// Of the member.
    pub generation: u32,
    /// The first 8 bytes of the member's X25519 key, in hexadecimal.
    pub key: String,
    /// Whether a frame has used it.
    pub active: bool,
    /// Where the client is.
    pub address: SocketAddr,
    /// Which of the relay's addresses it talks to.
    pub local: Option<SocketAddr>,
    /// Of its ticket.
    pub rate_class: u8,
    /// When its ticket ends, in seconds since 1970.
    pub expires: u64,
    /// Since its last frame, or since it began.
    pub idle_ms: u64,
    /// Frames received within its rate.
    pub packets: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Frames of it that went nowhere: beyond its rate, or for a member without a lease here, or for
    /// a relay that this one has no way to.
    pub dropped: u64,
    /// By other instances of its device within the last minute, 3 at most.
    pub takeovers: usize,
}

/// A thread that forwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRow {
    /// Its number, or `control`: the thread for everything but data.
    pub shard: String,
    /// Since its last turn; turns are a quarter of a second apart at most.
    pub last_turn_ms: u64,
    /// Turns that received something.
    pub batches: u64,
    /// Datagrams and trains received.
    pub arrivals: u64,
    /// Datagrams in them.
    pub datagrams: u64,
    /// Turns by arrivals: up to 1, 2, 4, … 1024, and more.
    pub batch_sizes: Vec<u64>,
    /// Arrivals by datagrams, in the same steps.
    pub train_lengths: Vec<u64>,
    /// Datagrams that went nowhere, by the relay's decision.
    pub dropped: u64,
    /// Datagrams that the kernel dropped before this thread saw them.
    pub kernel_drops: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that the kernel did not take.
    pub send_failures: u64,
    /// System calls.
    pub syscalls: u64,
    /// Times that every receive buffer was in use.
    pub pool_exhausted: u64,
    /// Sockets whose device cannot do segmentation offload.
    pub gso_disabled_sockets: u64,
    /// Times a destination was barred from it.
    pub gso_barred_destinations: u64,
    /// What the counts are off by: 0.
    pub skew: u64,
}

/// Whom a ban is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A member's X25519 key, as [`KeyName`] reads it.
    Key(KeyName),
    /// A session.
    Session(SessionId),
}

/// The beginning of an X25519 key: 16 hexadecimal digits, or all of it in URL-safe base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyName(pub KeyPrefix);

/// It is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "give the key's first 16 hexadecimal digits, as `ctl leases` shows them, or the key in base64"
)]
pub struct BadKeyName;

impl FromStr for KeyName {
    type Err = BadKeyName;

    fn from_str(text: &str) -> Result<Self, BadKeyName> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let (true, Ok(number)) = (is_hex, u64::from_str_radix(text, 16)) {
            return Ok(Self(KeyPrefix(number.to_be_bytes())));
        }
        let key = serde_json::from_value::<TunnelKey>(text.into()).map_err(|_| BadKeyName)?;
        Ok(Self(KeyPrefix::of(&key)))
    }
}

impl TryFrom<String> for KeyName {
    type Error = BadKeyName;

    fn try_from(text: String) -> Result<Self, BadKeyName> {
        text.parse()
    }
}

impl From<KeyName> for String {
    fn from(KeyName(prefix): KeyName) -> Self {
        prefix.to_string()
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(KeyName(key)) => write!(f, "key {key}"),
            Self::Session(session) => write!(f, "session {session}"),
        }
    }
}

/// A ban that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanRow {
    /// Whom it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// When it began, in seconds since 1970.
    pub since: u64,
}

/// What a ban has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Banned {
    /// Leases that it ended.
    pub ended: usize,
}

/// What a session or one of its members may send, in units a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapRow {
    /// Whose.
    pub session: SessionId,
    /// This member's lease; all leases of the session together if none.
    pub member: Option<u8>,
    /// Frames; as the rate class says if none.
    pub packets: Option<NonZeroU64>,
    /// Bytes.
    pub bytes: Option<NonZeroU64>,
    /// Copies of broadcasts.
    pub copies: Option<NonZeroU64>,
}

/// Asks clients to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Seconds until the relay may stop serving.
    pub deadline_s: u16,
    /// Where everybody is sent; to the next relay of each ticket if none.
    pub next: Option<u16>,
    /// Ends the relay once it is empty, or at the deadline.
    pub exit: bool,
}

/// A drain under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// Seconds left.
    pub left_s: u64,
    /// Where everybody is sent.
    pub next: Option<u16>,
    /// Messages sent, the repeated ones too.
    pub told: u64,
    /// Whether the relay ends with it.
    pub exit: bool,
}

/// The log's filter; asked for without changing it if none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// As in the setting `log`.
    pub filter: Option<String>,
}

/// Segmentation offload; asked for without changing it if none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gso {
    /// As in the setting `gso`.
    pub mode: Option<GsoSetting>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_its_first_digits_or_whole() {
        let key = TunnelKey(std::array::from_fn(|at| at as u8));
        let base64 = serde_json::to_string(&key).unwrap();
        let named = KeyName(KeyPrefix([0, 1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(base64.trim_matches('"').parse(), Ok(named));
        assert_eq!("0001020304050607".parse(), Ok(named));
        for bad in ["", "00010203040506", "000102030405060g", "+001020304050607"] {
            assert_eq!(bad.parse::<KeyName>(), Err(BadKeyName), "{bad}");
        }
        let subject = Subject::Key(named);
        let json = serde_json::to_string(&subject).unwrap();
        assert_eq!(json, r#"{"key":"0001020304050607"}"#);
        assert_eq!(serde_json::from_str::<Subject>(&json).unwrap(), subject);
    }
}
