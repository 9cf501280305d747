//! Snapshots for `status`: plain data, taken when asked.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use lanrage_proto::api::Role;
use lanrage_proto::frame::bind::Refusal;
use lanrage_proto::inner::LeaseState;
use lanrage_proto::{Member, RelayId};

/// One member as this client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its number.
    pub member: Member,
    /// Its name; from its signed entry when there is one.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whether this is the client itself.
    pub is_self: bool,
    /// Its address in the party's /24.
    pub ipv4: Ipv4Addr,
    /// Its address in the party's /64.
    pub ipv6: Ipv6Addr,
    /// Whether it answers on the LAN: control says it is on line, or a tunnel to it is in use.
    pub online: bool,
    /// How far the tunnel is.
    pub connection: Connection,
    /// The relays packets to it go by, best first.
    pub paths: Vec<RelayId>,
    /// Round trip through the tunnel.
    pub quality: Quality,
    /// Since the last handshake.
    pub last_handshake: Option<Duration>,
    /// Bytes of IP packets to it.
    pub bytes_sent: u64,
    /// Bytes of IP packets from it.
    pub bytes_received: u64,
}

/// How far a tunnel is, and why no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The client itself.
    Local,
    /// There is no entry of the member that device and party both stand behind.
    NotGenuine,
    /// No relay gives this client a lease.
    NoLease,
    /// Nothing has asked for the tunnel yet, or it has been idle for minutes.
    Idle,
    /// Handshake initiations have not been answered yet.
    Handshaking,
    /// Packets flow.
    Connected,
}

/// Round trips over the last measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// Median.
    pub rtt: Option<Duration>,
    /// 99th percentile.
    pub rtt_p99: Option<Duration>,
    /// Mean difference of consecutive round trips (RFC 3550 §6.4.1, on round trips).
    pub jitter: Duration,
    /// Lost per thousand.
    pub loss_permille: u16,
}

/// One relay of the party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// The relay.
    pub relay: RelayId,
    /// Where datagrams to it go.
    pub address: Option<SocketAddr>,
    /// This client's address as the relay sees it.
    pub reflexive: Option<SocketAddr>,
    /// `None` without a lease.
    pub state: Option<LeaseState>,
    /// Why the relay gave no lease when last asked.
    pub refusal: Option<Refusal>,
    /// Self-addressed frames.
    pub quality: Quality,
}
