//! Where requests come from, and what no single network may use up.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The network that one subscriber usually has: a /24 of IPv4, a /56 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Network([u8; 7]);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self([4, a, b, c, 0, 0, 0])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, ..] = ip.octets();
                Self([a, b, c, d, e, f, g])
            }
        }
    }
}

/// Something scarce, counted in units, of which no network has more than a share. Clones count
/// together.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    all: Arc<Semaphore>,
    total: u32,
    networks: Arc<Networks>,
}

#[derive(Debug)]
struct Networks {
    share: u32,
    /// What each network has left; only of those that hold or wait for something.
    left: Mutex<HashMap<Network, Arc<Semaphore>>>,
}

/// Units in use, given back on drop.
#[derive(Debug)]
pub(crate) struct Part {
    _of_all: OwnedSemaphorePermit,
    _of_network: OwnedSemaphorePermit,
    // After the permits: it looks whether the network holds anything else.
    _listed: Listed,
}

/// Keeps a network listed.
#[derive(Debug)]
struct Listed {
    networks: Arc<Networks>,
    network: Network,
    left: Arc<Semaphore>,
}

impl Shared {
    /// `total` units, of which one network has at most `share`.
    pub(crate) fn new(total: u32, share: u32) -> Self {
        let share = share.min(total);
        let networks = Networks { share, left: Mutex::default() };
        Self { all: Arc::new(Semaphore::new(total as usize)), total, networks: Arc::new(networks) }
    }

    /// Waits for one unit, before it is known who will use it.
    pub(crate) async fn one(&self) -> OwnedSemaphorePermit {
        self.many(1).await
    }

    /// Gives a unit to a network; `None` when the network has its share already.
    pub(crate) fn give(&self, one: OwnedSemaphorePermit, network: Network) -> Option<Part> {
        let listed = self.list(network);
        let of_network = Arc::clone(&listed.left).try_acquire_owned().ok()?;
        Some(Part { _of_all: one, _of_network: of_network, _listed: listed })
    }

    /// Waits for units; a network waits for its own share first, so that it stands in nobody's
    /// way. More than a share is as much as the share.
    pub(crate) async fn take(&self, units: u32, network: Network) -> Part {
        let units = units.min(self.networks.share);
        let listed = self.list(network);
        let of_network = Arc::clone(&listed.left).acquire_many_owned(units).await;
        let of_network = of_network.expect("the semaphore is never closed");
        Part { _of_all: self.many(units).await, _of_network: of_network, _listed: listed }
    }

    /// Waits until nothing is in use.
    pub(crate) async fn unused(&self) {
        drop(self.many(self.total).await);
    }

    async fn many(&self, units: u32) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.all).acquire_many_owned(units).await;
        permit.expect("the semaphore is never closed")
    }

    fn list(&self, network: Network) -> Listed {
        let full = || Arc::new(Semaphore::new(self.networks.share as usize));
        let left = Arc::clone(self.networks.lock().entry(network).or_insert_with(full));
        Listed { networks: Arc::clone(&self.networks), network, left }
    }
}

impl Networks {
    fn lock(&self) -> MutexGuard<'_, HashMap<Network, Arc<Semaphore>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut left = self.networks.lock();
        // The list's and ours; another holder or waiter has more.
        if Arc::strong_count(&self.left) == 2 {
            left.remove(&self.network);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn network(text: &str) -> Network {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn neighbours_share_a_network() {
        assert_eq!(network("192.0.2.1"), network("192.0.2.200"));
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.9"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:ff::1"));
        assert_ne!(network("2001:db8:0:100::1"), network("2001:db8:0:ff::1"));
    }

    #[tokio::test]
    async fn a_network_has_its_share_and_no_more() {
        const SOON: Duration = Duration::from_millis(20);
        let shared = Shared::new(10, 4);
        let (here, there) = (network("192.0.2.1"), network("192.0.3.1"));
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(shared.give(shared.one().await, here).unwrap());
        }
        assert!(shared.give(shared.one().await, here).is_none());
        assert!(timeout(SOON, shared.take(1, here)).await.is_err());
        let other = timeout(SOON, shared.take(99, there)).await.unwrap();
        assert_eq!(shared.all.available_permits(), 2, "a share, though it asked for more");
        assert!(timeout(SOON, shared.unused()).await.is_err());

        held.pop();
        held.push(timeout(SOON, shared.take(1, here)).await.unwrap());
        drop((held, other));
        timeout(SOON, shared.unused()).await.unwrap();
        assert!(shared.networks.lock().is_empty(), "nothing is kept of who is gone");
    }
}
