//! The other relays: from the relay map to the shards.
//!
//! Shards compare one number a pass, and take what is new under a lock that is held for as long as
//! a pointer is copied.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lanrage_proto::map::RelayMap;
use lanrage_proto::signed::RelayCertificate;
use lanrage_relay_core::mesh::{Other, Peers, Roster};
use lanrage_relay_table::{Endpoint, LocalId};

use crate::clock;

/// Between looks at the clock: shards that are late with an epoch still use the one before, which
/// every relay takes.
const LOOK: Duration = Duration::from_secs(5);

/// What the slow side knows of the other relays, and gives to the shards.
#[derive(Debug)]
pub(crate) struct Mesh {
    roster: Mutex<Roster>,
    sources: Sources,
    latest: Mutex<Option<Arc<Peers>>>,
    /// Counts what [`Mesh::latest`] has been.
    version: AtomicU64,
}

/// A shard's place in the mesh.
#[derive(Debug)]
pub(crate) struct Subscription {
    mesh: Arc<Mesh>,
    seen: u64,
}

/// Which of the relay's addresses data to other relays is sent from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources {
    ipv4: Option<LocalId>,
    ipv6: Option<LocalId>,
}

impl Sources {
    /// Those that are advertised, else the first of their family: an anycast address must not be a
    /// source between relays.
    pub(crate) fn new(listen: &[SocketAddr], advertised: &[SocketAddr]) -> Self {
        let of = |is_of: fn(&SocketAddr) -> bool| {
            let named = |at: &SocketAddr| is_of(at) && advertised.contains(at);
            let place = listen.iter().position(named).or_else(|| listen.iter().position(is_of));
            place.map(|place| LocalId(place as u16))
        };
        Self { ipv4: of(SocketAddr::is_ipv4), ipv6: of(SocketAddr::is_ipv6) }
    }

    /// The way to another relay. IPv4 comes first: its header is shorter, and the frame is longer
    /// than its sender's.
    fn to(self, certificate: &RelayCertificate) -> Option<Endpoint> {
        let ipv4 = certificate.ipv4.map(SocketAddr::V4).zip(self.ipv4);
        let ipv6 = certificate.ipv6.map(SocketAddr::V6).zip(self.ipv6);
        ipv4.or(ipv6).map(|(at, local)| Endpoint::new(at, local))
    }
}

impl Mesh {
    pub(crate) fn new(roster: Roster, sources: Sources) -> Self {
        Self {
            roster: Mutex::new(roster),
            sources,
            latest: Mutex::new(None),
            version: AtomicU64::new(0),
        }
    }

    /// Follows the relay map.
    pub(crate) fn set_map(&self, map: &RelayMap) {
        let certificates = map.relays.iter().map(|entry| &entry.certificate);
        let others = certificates.filter_map(|certificate| {
            let to = self.sources.to(certificate)?;
            Some(Other { relay: certificate.relay, key: certificate.key, to })
        });
        lock(&self.roster).set_others(others);
        self.publish();
    }

    /// Follows the clock from epoch to epoch.
    pub(crate) async fn follow_clock(&self) -> Infallible {
        let mut epoch = clock::moment().epoch;
        loop {
            tokio::time::sleep(LOOK).await;
            let now = clock::moment().epoch;
            if std::mem::replace(&mut epoch, now) != now {
                self.publish();
            }
        }
    }

    pub(crate) fn subscribe(self: &Arc<Self>) -> Subscription {
        Subscription { mesh: self.clone(), seen: 0 }
    }

    /// Gives the shards what they need now.
    pub(crate) fn publish(&self) {
        let peers = lock(&self.roster).peers(clock::moment());
        *lock(&self.latest) = Some(Arc::new(peers));
        self.version.fetch_add(1, Ordering::Release);
    }
}

impl Subscription {
    /// The other relays, if they are others than last time.
    pub(crate) fn poll(&mut self) -> Option<Arc<Peers>> {
        let version = self.mesh.version.load(Ordering::Acquire);
        if version == self.seen {
            return None;
        }
        self.seen = version;
        lock(&self.mesh.latest).clone()
    }
}

/// Whole values are stored under these locks, so a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_to_other_relays_leaves_from_the_advertised_address() {
        let listen =
            ["192.0.2.99:1", "192.0.2.1:1", "[2001:db8::1]:1"].map(|at| at.parse().unwrap());
        let sources = |advertised: &[SocketAddr]| {
            let Sources { ipv4, ipv6 } = Sources::new(&listen, advertised);
            (ipv4.map(|local| local.0), ipv6.map(|local| local.0))
        };
        assert_eq!(sources(&listen[1..2]), (Some(1), Some(2)));
        assert_eq!(
            sources(&["198.51.100.1:1".parse().unwrap()]),
            (Some(0), Some(2)),
            "behind a NAT"
        );
    }
}
