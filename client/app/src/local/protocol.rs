//! What the command line and the daemon say to each other.
//!
//! One JSON object a line: a request has `version` and `request`; an answer is `{"ok": …}` or
//! `{"error": …}`. Invites travel here, in bodies, and nowhere else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lanrage_client_core::{LeaseStatus, MemberStatus, RelayName};
use lanrage_proto::api::Role;
use lanrage_proto::{Epoch, Member, SessionId};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The version of this interface.
pub const VERSION: u32 = 1;
/// Bytes of the longest request.
pub const REQUEST_LEN_MAX: usize = 16 << 10;
/// Bytes of the longest answer: 250 members of about 600 bytes, and then some.
pub const ANSWER_LEN_MAX: usize = 1 << 20;

/// A request's line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`VERSION`]
    pub version: u32,
    /// What is asked.
    #[serde(flatten)]
    pub request: Request,
}

/// What the daemon can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// → [`Reply::Status`]; with `watch`, one a second until the caller hangs up.
    Status {
        /// Whether to go on.
        #[serde(default)]
        watch: bool,
    },
    /// Brings the active party's LAN up if it is not → [`Reply::Done`].
    Up,
    /// Takes the LAN down and ends the daemon → [`Reply::Done`].
    Down,
    /// → [`Reply::Entered`] with a first invite.
    Create {
        /// The party's name.
        name: String,
        /// `lanrage-server://…`
        server: String,
        /// The caller's name in the party.
        member_name: String,
        /// The network address of a /24; one that is free here when absent.
        subnet: Option<Ipv4Addr>,
    },
    /// → [`Reply::Entered`]
    Join {
        /// `lanrage://…`
        invite: String,
        /// The name the caller would like.
        member_name: String,
    },
    /// Leaves for good → [`Reply::Left`].
    Leave {
        /// Name or id; the active party when absent.
        party: Option<String>,
        /// Only forgets the party on this machine, without telling control.
        #[serde(default)]
        forget: bool,
    },
    /// Makes another party the active one → [`Reply::Entered`].
    Switch {
        /// Name or id.
        party: String,
    },
    /// → [`Reply::Parties`]
    List,
    /// → [`Reply::Members`]
    Members,
    /// → [`Reply::Invite`]
    Invite {
        /// Seconds until it expires.
        lifetime_s: u64,
        /// How many devices may use it.
        uses: u16,
    },
    /// → [`Reply::Done`]
    Kick {
        /// Name or number.
        member: String,
    },
    /// → [`Reply::Done`]
    SetRole {
        /// Name or number.
        member: String,
        /// [`Role::Promoted`] or [`Role::Member`].
        role: Role,
    },
    /// One echo through the tunnel → [`Reply::Pong`].
    Ping {
        /// Name, number or address.
        member: String,
    },
}

/// An answer's line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It worked.
    Ok(Reply),
    /// It did not.
    Error(Failure),
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Nothing more to say.
    Done {},
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Create`], [`Request::Join`] and [`Request::Switch`].
    Entered(Entered),
    /// To [`Request::List`].
    Parties {
        /// By id.
        parties: Vec<PartySummary>,
    },
    /// To [`Request::Members`].
    Members {
        /// By number.
        members: Vec<MemberStatus>,
    },
    /// To [`Request::Invite`].
    Invite {
        /// `lanrage://…`
        invite: String,
        /// Seconds until it expires.
        lifetime_s: u64,
        /// How many devices may use it.
        uses: u16,
    },
    /// To [`Request::Leave`].
    Left {
        /// The party's name.
        party: String,
        /// Whether this device was its owner: control has made another member that, if there is
        /// one.
        was_owner: bool,
    },
    /// To [`Request::Ping`].
    Pong {
        /// Who was asked.
        member: Member,
        /// Its name.
        name: String,
        /// Its address.
        address: IpAddr,
        /// `None` when no answer came.
        rtt_us: Option<u64>,
        /// The relay the answer came by.
        relay: Option<RelayName>,
    },
}

/// The first invite of a new party holds for a whole evening of friends.
pub const FIRST_INVITE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Devices that may join by the first invite of a new party.
pub const FIRST_INVITE_USES: u16 = 250;

/// A party that is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entered {
    /// The party.
    pub party: PartySummary,
    /// The interface.
    pub nic: String,
    /// A first invite, when the party was just made: for [`FIRST_INVITE_USES`] devices and
    /// [`FIRST_INVITE_LIFETIME`].
    pub invite: Option<String>,
    /// The party that was active before.
    pub replaced: Option<String>,
    /// Whether this device was a member already.
    pub again: bool,
}

/// One membership of this device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartySummary {
    /// The party.
    pub session: SessionId,
    /// Its name.
    pub name: String,
    /// Network address of its /24.
    pub subnet: Ipv4Addr,
    /// This device's number.
    pub member: Member,
    /// This device's name.
    pub member_name: String,
    /// This device's address.
    pub ipv4: Ipv4Addr,
    /// This device's address.
    pub ipv6: Ipv6Addr,
    /// The control service, `host:port`.
    pub server: String,
    /// Whether it is the party that is up while the daemon runs.
    pub active: bool,
    /// Whether control lists this device in it, as far as control has said.
    pub listed: bool,
}

/// Everything that is going on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
    /// The daemon's state directory.
    pub state_dir: PathBuf,
    /// The name of its NIC.
    pub nic: String,
    /// Where it serves metrics.
    pub metrics: Option<SocketAddr>,
    /// The party that is up.
    pub party: Option<ActiveStatus>,
    /// Why no party is up, when one should be.
    pub problem: Option<Failure>,
}

/// The party that is up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActiveStatus {
    /// Names and addresses.
    #[serde(flatten)]
    pub party: PartySummary,
    /// The interface.
    pub nic: String,
    /// What is wrong with the interface.
    pub nic_problem: Option<String>,
    /// The newest secret's version.
    pub epoch: Epoch,
    /// The control service.
    pub control: ControlStatus,
    /// The party's relays, in its order.
    pub relays: Vec<LeaseStatus>,
    /// Set while no relay has answered for a few seconds.
    pub relay_problem: Option<String>,
    /// By number.
    pub members: Vec<MemberStatus>,
    /// Drops by reason, those above 0.
    pub drops: Vec<(String, u64)>,
}

/// The connection to control. Play goes on without it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlStatus {
    /// Whether the stream is open.
    pub connected: bool,
    /// Why it is not.
    pub problem: Option<String>,
}
