//! Snapshots for `status`: plain data, taken when asked. In JSON times are whole units, which the
//! field's name says.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use lanrage_proto::api::Role;
use lanrage_proto::frame::bind::Refusal;
use lanrage_proto::inner::LeaseState;
use lanrage_proto::map::RelayMap;
use lanrage_proto::{Member, RelayId};
use serde::{Deserialize, Serialize};

/// A relay by number and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayName {
    /// Its number.
    pub id: RelayId,
    /// What operators call it; its number when the map does not say.
    pub name: String,
}

impl RelayName {
    /// As the map calls it.
    pub fn new(id: RelayId, map: &RelayMap) -> Self {
        Self { id, name: map.relay(id).map_or_else(|| id.to_string(), |entry| entry.name.clone()) }
    }
}

/// A way to a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStatus {
    /// The relay that this client sends by.
    #[serde(flatten)]
    pub relay: RelayName,
    /// The relay that delivers, when it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<RelayName>,
}

/// One member as this client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The ways packets to it go, best first.
    pub paths: Vec<PathStatus>,
    /// Round trip through the tunnel.
    #[serde(flatten)]
    pub quality: Quality,
    /// Since the last handshake.
    #[serde(rename = "last_handshake_s", with = "seconds")]
    pub last_handshake: Option<Duration>,
    /// Bytes of IP packets to it.
    pub bytes_sent: u64,
    /// Bytes of IP packets from it.
    pub bytes_received: u64,
}

/// How far a tunnel is, and why no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// The client itself.
    #[serde(rename = "self")]
    Local,
    /// There is no entry of the member that device and party both stand behind.
    NotGenuine,
    /// No relay gives this client a lease that works.
    #[serde(rename = "no_relay")]
    NoLease,
    /// Nothing has asked for the tunnel yet, or it has been idle for minutes.
    Idle,
    /// Handshake initiations have not been answered yet.
    #[serde(rename = "connecting")]
    Handshaking,
    /// There is a session, but the member does not answer: it has announced that it holds no lease
    /// (it was shut down, or plays in another party), or six echoes in a row or a ping stayed
    /// without an answer. Anything authentic from it ends this.
    Silent,
    /// There is a session, and nothing tells that packets do not arrive. While none cross nobody
    /// asks: a member that vanished without a word stays connected until packets are sent to it, or
    /// until its session expires after 3 min.
    Connected,
}

/// Round trips over the last measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quality {
    /// Median.
    #[serde(rename = "rtt_us", with = "optional_micros")]
    pub rtt: Option<Duration>,
    /// 99th percentile.
    #[serde(rename = "rtt_p99_us", with = "optional_micros")]
    pub rtt_p99: Option<Duration>,
    /// Mean difference of consecutive round trips (RFC 3550 §6.4.1, on round trips).
    #[serde(rename = "jitter_us", with = "micros")]
    pub jitter: Duration,
    /// Lost per thousand.
    pub loss_permille: u16,
}

/// One relay of the party.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The relay.
    #[serde(flatten)]
    pub relay: RelayName,
    /// Whether they go by a stream, since UDP is blocked.
    pub stream: bool,
    /// Where datagrams to it go by UDP.
    pub address: Option<SocketAddr>,
    /// This client's address as the relay sees it.
    pub reflexive: Option<SocketAddr>,
    /// `None` without a lease.
    pub state: Option<LeaseState>,
    /// Why the relay gave no lease when last asked.
    pub refusal: Option<Refusal>,
    /// Self-addressed frames.
    #[serde(flatten)]
    pub quality: Quality,
}

impl Connection {
    /// The name in `status`, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "self",
            Self::NotGenuine => "not_genuine",
            Self::NoLease => "no_relay",
            Self::Idle => "idle",
            Self::Handshaking => "connecting",
            Self::Silent => "silent",
            Self::Connected => "connected",
        }
    }
}

mod micros {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.as_micros() as u64)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}

mod optional_micros {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(|time| time.as_micros() as u64).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::deserialize(from)?.map(Duration::from_micros))
    }
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(|time| time.as_secs()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::deserialize(from)?.map(Duration::from_secs))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn path(egress: Option<&str>) -> PathStatus {
        let name = |id, name: &str| RelayName { id: RelayId(id), name: name.to_owned() };
        PathStatus { relay: name(7, "fra1"), egress: egress.map(|egress| name(8, egress)) }
    }

    fn member() -> MemberStatus {
        MemberStatus {
            member: Member::new(2).unwrap(),
            name: "bert".to_owned(),
            role: Role::Member,
            is_self: false,
            ipv4: Ipv4Addr::new(10, 66, 5, 2),
            ipv6: "fd00::2".parse().unwrap(),
            online: true,
            connection: Connection::Connected,
            paths: vec![path(None), path(Some("ams1"))],
            quality: Quality {
                rtt: Some(Duration::from_micros(1500)),
                rtt_p99: None,
                jitter: Duration::from_micros(20),
                loss_permille: 5,
            },
            last_handshake: Some(Duration::from_secs(3)),
            bytes_sent: 1,
            bytes_received: 2,
        }
    }

    #[test]
    fn members_are_flat_and_come_back() {
        let value = serde_json::to_value(member()).unwrap();
        let expected = json!({
            "member": 2, "name": "bert", "role": "member", "is_self": false,
            "ipv4": "10.66.5.2", "ipv6": "fd00::2", "online": true, "connection": "connected",
            "paths": [
                {"id": 7, "name": "fra1"},
                {"id": 7, "name": "fra1", "egress": {"id": 8, "name": "ams1"}}
            ],
            "rtt_us": 1500, "rtt_p99_us": null, "jitter_us": 20, "loss_permille": 5,
            "last_handshake_s": 3, "bytes_sent": 1, "bytes_received": 2
        });
        assert_eq!(value, expected);
        assert_eq!(serde_json::from_value::<MemberStatus>(value).unwrap(), member());
    }

    #[test]
    fn leases_are_flat_and_come_back() {
        let lease = LeaseStatus {
            relay: RelayName { id: RelayId(7), name: "fra1".to_owned() },
            stream: false,
            address: Some("192.0.2.1:51820".parse().unwrap()),
            reflexive: None,
            state: Some(LeaseState::Suspect),
            refusal: Some(Refusal::NotYetValid),
            quality: Quality::default(),
        };
        let value = serde_json::to_value(&lease).unwrap();
        let expected = json!({
            "id": 7, "name": "fra1", "stream": false, "address": "192.0.2.1:51820", "reflexive": null,
            "state": "suspect", "refusal": "not_yet_valid",
            "rtt_us": null, "rtt_p99_us": null, "jitter_us": 0, "loss_permille": 0
        });
        assert_eq!(value, expected);
        assert_eq!(serde_json::from_value::<LeaseStatus>(value).unwrap(), lease);
    }

    #[test]
    fn words_are_the_same_in_json_and_for_people() {
        for connection in [
            Connection::Local,
            Connection::NotGenuine,
            Connection::NoLease,
            Connection::Idle,
            Connection::Handshaking,
            Connection::Silent,
            Connection::Connected,
        ] {
            assert_eq!(serde_json::to_value(connection).unwrap(), connection.as_str());
        }
        for refusal in Refusal::ALL {
            assert_eq!(serde_json::to_value(refusal).unwrap(), Value::from(refusal.as_str()));
        }
    }
}
