//! What is sent: groups of leases, each with its own kind of traffic.

use std::net::SocketAddrV4;

use crate::frame::{HEADERS_LEN, Road, head};
use crate::generator::{Record, Stream};
use crate::population::{Flow, Population};

/// Leases with the same kind of traffic; their class in the sink is the group's place.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// Who.
    pub population: Population,
    /// Bytes of WireGuard datagram, after what a contestant wants in front.
    pub payload_len: usize,
    /// Frames that leave at once.
    pub burst: u32,
    /// Frames of one sender in a row.
    pub train: u32,
    /// Each 2^n-th is stamped.
    pub stamp_bits: u32,
    /// Its part of the whole rate, in frames.
    pub share: f64,
    /// To all of their party, in a player's rate class; the others have no limits.
    pub broadcasts: bool,
}

/// Groups, their leases numbered one after the other.
#[derive(Debug, Clone)]
pub struct Workload {
    /// For results.
    pub name: &'static str,
    /// At most [`crate::sink::CLASSES`].
    pub groups: Vec<Group>,
    /// Leases that the relay has room for beside these.
    pub spare: u32,
}

const fn group(leases: u32, payload_len: usize, burst: u32, train: u32) -> Group {
    let population = Population { leases, party: 4 };
    Group { population, payload_len, burst, train, stamp_bits: 4, share: 1.0, broadcasts: false }
}

impl Workload {
    /// Game traffic: each datagram from another source.
    #[must_use]
    pub fn game(leases: u32) -> Self {
        Self { name: "game", groups: vec![group(leases, 120, 32, 1)], spare: 0 }
    }

    /// Game traffic whose datagrams come one by one.
    #[must_use]
    pub fn sparse(leases: u32) -> Self {
        let groups = vec![Group { stamp_bits: 0, ..group(leases, 120, 1, 1) }];
        Self { name: "sparse", groups, spare: 0 }
    }

    /// Voice: 200 B, in smaller bunches.
    #[must_use]
    pub fn voice(leases: u32) -> Self {
        Self { name: "voice", groups: vec![group(leases, 200, 8, 1)], spare: 0 }
    }

    /// Four flows of full datagrams in trains.
    #[must_use]
    pub fn bulk() -> Self {
        Self { name: "bulk", groups: vec![group(4, 1400, 44, 44)], spare: 0 }
    }

    /// Game, voice, and one download in ten frames.
    #[must_use]
    pub fn mixed() -> Self {
        let with = |share, group| Group { share, ..group };
        let groups = vec![
            with(0.6, group(1000, 120, 32, 1)),
            with(0.3, group(200, 200, 8, 1)),
            with(0.1, group(4, 1400, 44, 44)),
        ];
        Self { name: "mixed", groups, spare: 0 }
    }

    /// A thousand players' datagrams one by one, and 16 parties of 250 that broadcast.
    #[must_use]
    pub fn storm() -> Self {
        let mut groups = Self::sparse(1000).groups;
        let population = Population { leases: 16 * 250, party: 250 };
        groups.push(Group { population, broadcasts: true, ..group(0, 120, 1, 1) });
        Self { name: "storm", groups, spare: 0 }
    }

    /// Leases of all groups.
    #[must_use]
    pub fn leases(&self) -> u32 {
        self.groups.iter().map(|group| group.population.leases).sum()
    }

    /// Where each lease's client is, by the lease's number.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddrV4> + '_ {
        self.numbered().flat_map(|(class, first, group)| {
            (first..first + group.population.leases)
                .map(move |lease| Population::address(lease, class))
        })
    }

    /// For each lease its session and member number; sessions are counted over all groups.
    pub fn memberships(&self) -> impl Iterator<Item = (u32, u8)> + '_ {
        let mut sessions = 0;
        self.groups.iter().flat_map(move |Group { population, .. }| {
            let first = sessions;
            sessions += population.leases.div_ceil(population.party);
            (0..population.leases)
                .map(move |lease| (first + population.session(lease), population.member(lease)))
        })
    }

    /// For each lease whether it broadcasts.
    pub fn broadcasts(&self) -> impl Iterator<Item = bool> + '_ {
        let of = |group: &Group| (group.population.leases, group.broadcasts);
        self.groups
            .iter()
            .map(of)
            .flat_map(|(leases, broadcasts)| (0..leases).map(move |_| broadcasts))
    }

    /// All groups' flows, one group after the other.
    pub fn flows(&self) -> impl Iterator<Item = Flow> + '_ {
        self.numbered().flat_map(|(class, first, group)| {
            group
                .population
                .flows(u64::from(class))
                .into_iter()
                .map(move |flow| Flow { source: first + flow.source, target: first + flow.target })
        })
    }

    /// The generator's streams. `prefixes` is what goes before the payload, by flow.
    ///
    /// # Panics
    ///
    /// If there is not a prefix for each flow.
    #[must_use]
    pub fn streams(&self, road: &Road, prefixes: &[Vec<u8>]) -> Vec<Stream> {
        let addresses: Vec<SocketAddrV4> = self.addresses().collect();
        let mut flows = self.flows().zip(prefixes);
        self.groups
            .iter()
            .map(|group| {
                let mut prefix_len = 0;
                let records: Vec<Record> = (0..group.population.leases)
                    .map(|_| {
                        let (flow, prefix) = flows.next().expect("a prefix for each flow");
                        prefix_len = prefix.len();
                        let source = addresses[flow.source as usize];
                        let target = addresses[flow.target as usize].ip().octets();
                        Record { head: head(road, source, prefix, group.payload_len), target }
                    })
                    .collect();
                Stream {
                    records,
                    frame_len: HEADERS_LEN + prefix_len + group.payload_len,
                    prefix_len,
                    burst: group.burst,
                    train: group.train,
                    stamp_bits: group.stamp_bits,
                }
            })
            .collect()
    }

    /// The streams' rates when all together send `rate` frames a second.
    #[must_use]
    pub fn rates(&self, rate: f64) -> Vec<f64> {
        self.groups.iter().map(|group| group.share * rate).collect()
    }

    fn numbered(&self) -> impl Iterator<Item = (u8, u32, &Group)> {
        self.groups.iter().enumerate().scan(0, |leases, (class, group)| {
            let first = *leases;
            *leases += group.population.leases;
            Some((class as u8, first, group))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lease_of_a_mixed_workload_has_an_address_and_a_party() {
        let workload = Workload::mixed();
        let leases = workload.leases() as usize;
        assert_eq!(leases, 1204);
        let addresses: std::collections::HashSet<_> = workload.addresses().collect();
        let members: std::collections::HashSet<_> = workload.memberships().collect();
        assert_eq!((addresses.len(), members.len()), (leases, leases));
        let sessions: Vec<u32> = workload.memberships().map(|(session, _)| session).collect();
        for flow in workload.flows() {
            assert_eq!(sessions[flow.source as usize], sessions[flow.target as usize]);
        }
    }

    #[test]
    fn bulk_frames_fit_the_mtu() {
        let road = Road { to: [1; 6], from: [2; 6], relay: "192.0.2.1:51820".parse().unwrap() };
        let streams = Workload::bulk().streams(&road, &vec![vec![0; 16]; 4]);
        assert_eq!(streams[0].frame_len, 14 + 20 + 8 + 16 + 1400);
    }
}
