use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use lanrage_proto::RelayId;
use lanrage_proto::api::ErrorCode;
use lanrage_proto::map::TlsAccess;

use super::{Refusal, refuse};

/// Where a relay is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Unicast.
    pub(crate) ipv4: Option<SocketAddrV4>,
    /// Unicast.
    pub(crate) ipv6: Option<SocketAddrV6>,
    /// At these addresses over TLS.
    pub(crate) tls: Option<TlsAccess>,
}

/// A relay's addresses for people.
pub(crate) fn text(Addresses { ipv4, ipv6, .. }: Addresses) -> String {
    let (ipv4, ipv6) = (ipv4.map(SocketAddr::V4), ipv6.map(SocketAddr::V6));
    let all: Vec<_> = [ipv4, ipv6].into_iter().flatten().map(|a| a.to_string()).collect();
    all.join(", ")
}

/// How a relay stands, as far as party lists care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RelayStanding {
    pub(crate) relay: RelayId,
    pub(crate) health: Health,
    /// Leases at its last heartbeat.
    pub(crate) load: u64,
    /// Breaks ties.
    pub(crate) random: u32,
}

/// See [`RelayStanding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    /// Takes new parties.
    Serving,
    /// Silent or draining, but not for long: keeps its parties, takes no new ones.
    Silent,
    /// For 10 minutes: loses its parties when another serves.
    Gone,
}

/// A party's list after what is known today: relays that were removed from the pool go, relays
/// that are gone are replaced in their place, and a short list grows to `wanted`, with the serving
/// relay of the least load first. A relay that is gone stays as long as none can replace it.
pub(crate) fn revise(list: &[RelayId], pool: &[RelayStanding], wanted: usize) -> Vec<RelayId> {
    let standing = |relay: &RelayId| pool.iter().find(|standing| standing.relay == *relay);
    let mut free: Vec<_> = pool
        .iter()
        .filter(|standing| standing.health == Health::Serving && !list.contains(&standing.relay))
        .collect();
    free.sort_unstable_by_key(|standing| (standing.load, standing.random));
    let mut free = free.into_iter().map(|standing| standing.relay);

    let mut revised: Vec<RelayId> = list
        .iter()
        .filter_map(|relay| match standing(relay) {
            None => free.next(),
            Some(standing) if standing.health == Health::Gone => free.next().or(Some(*relay)),
            Some(_) => Some(*relay),
        })
        .collect();
    let missing = wanted.saturating_sub(revised.len());
    revised.extend(free.take(missing));
    revised
}

/// Checks that clients can send to a relay at the addresses of its certificate, which has room for
/// address and port alone.
///
/// # Errors
/// [`ErrorCode::BadRequest`].
pub(crate) fn check_addresses(Addresses { ipv4, ipv6, .. }: Addresses) -> Result<(), Refusal> {
    let message = if ipv4.is_none() && ipv6.is_none() {
        "a relay has at least one unicast address: set `advertise` on the relay"
    } else if ipv4.is_some_and(|a| !is_usable_v4(&a)) || ipv6.is_some_and(|a| !is_usable_v6(&a)) {
        // Short enough for a stream's close frame.
        "an address clients cannot use: `advertise` unicast ones with port, no scope, no fe80::"
    } else {
        return Ok(());
    };
    Err(refuse(ErrorCode::BadRequest, message))
}

const fn is_usable_v4(address: &SocketAddrV4) -> bool {
    let ip = address.ip();
    address.port() != 0
        && !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_link_local())
}

fn is_usable_v6(address: &SocketAddrV6) -> bool {
    let ip = address.ip();
    address.port() != 0
        && (address.scope_id(), address.flowinfo()) == (0, 0)
        && !(ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local())
        && ip.to_ipv4_mapped().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_clients_cannot_use_are_refused() {
        let check = |ipv4: Option<&str>, ipv6: Option<&str>| {
            let ipv4 = ipv4.map(|text| text.parse().unwrap());
            let ipv6 = ipv6.map(|text| text.parse().unwrap());
            check_addresses(Addresses { ipv4, ipv6, tls: None }).is_ok()
        };
        assert!(check(Some("192.0.2.1:51820"), Some("[2001:db8::1]:51820")));
        assert!(check(Some("127.0.0.1:1"), None) && check(None, Some("[::1]:1")));
        assert!(!check(None, None));
        for wrong in
            ["0.0.0.0:1", "192.0.2.1:0", "224.0.0.1:1", "255.255.255.255:1", "169.254.0.1:1"]
        {
            assert!(!check(Some(wrong), Some("[2001:db8::1]:51820")), "{wrong}");
        }
        for wrong in [
            "[::]:1",
            "[2001:db8::1]:0",
            "[2001:db8::1%2]:1",
            "[fe80::1]:1",
            "[ff02::1]:1",
            "[::ffff:192.0.2.1]:1",
        ] {
            assert!(!check(Some("192.0.2.1:51820"), Some(wrong)), "{wrong}");
        }
    }

    fn pool(standings: &[(u16, Health, u64)]) -> Vec<RelayStanding> {
        let standing = |&(id, health, load)| RelayStanding {
            relay: RelayId(id),
            health,
            load,
            random: u32::from(id),
        };
        standings.iter().map(standing).collect()
    }

    fn revised(list: &[u16], standings: &[(u16, Health, u64)]) -> Vec<u16> {
        let list: Vec<_> = list.iter().copied().map(RelayId).collect();
        revise(&list, &pool(standings), 2).into_iter().map(|relay| relay.0).collect()
    }

    #[test]
    fn a_new_party_gets_the_least_loaded_that_serve() {
        use Health::{Gone, Serving, Silent};
        let pool =
            [(1, Serving, 9), (2, Silent, 0), (3, Serving, 1), (4, Gone, 0), (5, Serving, 5)];
        assert_eq!(revised(&[], &pool), [3, 5]);
        assert_eq!(revised(&[], &[]), [0_u16; 0]);
    }

    #[test]
    fn lists_change_only_when_they_must() {
        use Health::{Gone, Serving, Silent};
        assert_eq!(revised(&[1, 2], &[(1, Silent, 0), (2, Serving, 9), (3, Serving, 0)]), [1, 2]);
        assert_eq!(revised(&[1, 2], &[(1, Gone, 0), (2, Serving, 9), (3, Serving, 0)]), [3, 2]);
        assert_eq!(revised(&[1, 2], &[(1, Gone, 0), (2, Serving, 9)]), [1, 2], "nothing better");
        assert_eq!(revised(&[1, 2], &[(2, Serving, 0), (3, Serving, 0)]), [3, 2], "removed");
        assert_eq!(revised(&[1, 2], &[(2, Serving, 0)]), [2], "removed, none to replace it");
        assert_eq!(revised(&[1], &[(1, Serving, 0), (3, Serving, 0)]), [1, 3], "grows");
    }
}
