//! Who sends to whom: leases with addresses of their own, in parties of one size.

use std::net::{Ipv4Addr, SocketAddrV4};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

/// 10.128.0.0/12 holds the clients: a million addresses, routed over the one gateway.
pub const CLIENTS: &str = "10.128.0.0/12";
const CLIENTS_FIRST: u32 = 0x0a80_0000;
/// The port of the first class; see [`crate::sink::CLASSES`].
pub const PORT: u16 = 20_000;
/// Most leases.
pub const LEASES_MAX: u32 = 1 << 20;

/// Leases by index, in parties of `party` members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Population {
    /// Leases of all parties.
    pub leases: u32,
    /// Members of a party, 2 to 250.
    pub party: u32,
}

/// A member that sends, and the one it sends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The sender's lease.
    pub source: u32,
    /// The receiver's lease, of the same party.
    pub target: u32,
}

impl Population {
    /// Where a lease's client is. Neighbours are in different /24s, since the relay has a budget for
    /// each; `class` is the receiver's place in the sink's counters.
    #[must_use]
    pub fn address(lease: u32, class: u8) -> SocketAddrV4 {
        let host = (lease & 0xfff) << 8 | lease >> 12 & 0xff;
        SocketAddrV4::new(Ipv4Addr::from(CLIENTS_FIRST | host), PORT + u16::from(class))
    }

    /// The party of a lease, from 0.
    #[must_use]
    pub fn session(self, lease: u32) -> u32 {
        lease / self.party
    }

    /// The member number of a lease, 1 to 250.
    #[must_use]
    pub fn member(self, lease: u32) -> u8 {
        (lease % self.party + 1) as u8
    }

    /// One flow from each lease to another of its party, in an order drawn from `seed`.
    #[must_use]
    pub fn flows(self, seed: u64) -> Vec<Flow> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut flows: Vec<Flow> = (0..self.leases)
            .map(|source| {
                let first = source - source % self.party;
                let members = self.party.min(self.leases - first);
                let step = 1 + random.next_u32() % (members - 1).max(1);
                Flow { source, target: first + (source - first + step) % members }
            })
            .collect();
        for last in (1..flows.len()).rev() {
            flows.swap(last, random.next_u32() as usize % (last + 1));
        }
        flows
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_lease_sends_to_another_of_its_party() {
        let population = Population { leases: 1000, party: 4 };
        let flows = population.flows(1);
        let sources: HashSet<u32> = flows.iter().map(|flow| flow.source).collect();
        assert_eq!(sources.len(), 1000);
        for flow in &flows {
            assert_ne!(flow.source, flow.target);
            assert_eq!(population.session(flow.source), population.session(flow.target));
        }
        assert_ne!(flows, population.flows(2));
        assert_eq!(flows, population.flows(1));
    }

    #[test]
    fn addresses_are_distinct_and_within_the_route() {
        let addresses: HashSet<_> =
            (0..LEASES_MAX).map(|lease| Population::address(lease, 0)).collect();
        assert_eq!(addresses.len(), LEASES_MAX as usize);
        assert!(addresses.iter().all(
            |address| address.ip().octets()[0] == 10 && address.ip().octets()[1] & 0xf0 == 128
        ));
    }
}
