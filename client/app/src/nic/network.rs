use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use lanrage_client_core::Networks;

/// An address and how many of its leading bits name the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address in it.
    pub address: IpAddr,
    /// Leading bits that all its addresses share.
    pub prefix_len: u8,
}

impl Network {
    /// A party's /24.
    pub const fn of_subnet(subnet: Ipv4Addr) -> Self {
        Self { address: IpAddr::V4(subnet), prefix_len: 24 }
    }

    /// A party's networks, IPv4 first.
    pub fn of_party(networks: &Networks) -> [Self; 2] {
        let ipv6 = Self { address: networks.prefix.into(), prefix_len: 64 };
        [Self::of_subnet(networks.subnet), ipv6]
    }

    /// Whether the networks share addresses: one lies within the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        let shared = u32::from(self.prefix_len.min(other.prefix_len));
        match (self.address, other.address) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                let differing = one.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= shared
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                let differing = one.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= shared
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

/// A local route that shares addresses with a party's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// What the route is for; the host's own address with all its bits.
    pub network: Network,
    /// Where it leads.
    pub interface: String,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.network, self.interface)
    }
}

/// The most specific local routes, of two kinds, that overlap a party's network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlaps {
    /// Both cannot be used at once.
    pub conflict: Option<Overlap>,
    /// A wider route, which the party's network is taken out of.
    pub wider: Option<Overlap>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_either_way_round_and_within_a_family() {
        let network = |text: &str| {
            let (address, prefix_len) = text.split_once('/').unwrap();
            Network { address: address.parse().unwrap(), prefix_len: prefix_len.parse().unwrap() }
        };
        for (one, other, expected) in [
            ("10.66.5.0/24", "10.66.5.0/24", true),
            ("10.66.5.0/24", "10.66.5.128/25", true),
            ("10.66.5.0/24", "10.66.5.77/32", true),
            ("10.66.5.0/24", "10.66.0.0/16", true),
            ("10.66.5.0/24", "10.0.0.0/8", true),
            ("10.66.5.0/24", "0.0.0.0/0", true),
            ("10.66.5.0/24", "10.66.4.0/24", false),
            ("10.66.5.0/24", "10.66.6.0/23", false),
            ("10.66.5.0/24", "10.66.4.0/23", true),
            ("10.66.5.0/24", "192.168.5.0/24", false),
            ("fd00:1:2:3::/64", "fd00:1:2::/48", true),
            ("fd00:1:2:3::/64", "fd00:1:2:4::/64", false),
            ("fd00:1:2:3::/64", "::/0", true),
            ("fd00:1:2:3::/64", "0.0.0.0/0", false),
        ] {
            assert_eq!(network(one).overlaps(&network(other)), expected, "{one} {other}");
            assert_eq!(network(other).overlaps(&network(one)), expected, "{other} {one}");
        }
    }
}
