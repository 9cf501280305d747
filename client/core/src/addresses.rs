//! A member's three addresses follow from the party's networks and the member's number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lanrage_proto::Member;

/// The networks of a party.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Networks {
    /// Network address of the /24.
    pub subnet: Ipv4Addr,
    /// Network address of the /64.
    pub prefix: Ipv6Addr,
}

/// Whom an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// One of a member's three addresses.
    Member(Member),
    /// A broadcast address of the party's /24, or a multicast group.
    Group,
    /// Nobody in the party.
    Nobody,
}

impl Networks {
    /// `subnet` with the member's number as last byte.
    pub const fn ipv4(&self, member: Member) -> Ipv4Addr {
        let [a, b, c, _] = self.subnet.octets();
        Ipv4Addr::new(a, b, c, member.number())
    }

    /// `prefix` with the member's number as interface identifier.
    pub const fn ipv6(&self, member: Member) -> Ipv6Addr {
        let [a, b, c, d, ..] = self.prefix.segments();
        Ipv6Addr::new(a, b, c, d, 0, 0, 0, member.number() as u16)
    }

    /// The address every party shares: `fe80::n`.
    pub const fn link_local(member: Member) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, member.number() as u16)
    }

    /// The /24's broadcast address.
    pub const fn broadcast(&self) -> Ipv4Addr {
        let [a, b, c, _] = self.subnet.octets();
        Ipv4Addr::new(a, b, c, 255)
    }

    /// Whose address it is.
    pub fn owner(&self, address: IpAddr) -> Owner {
        match address {
            IpAddr::V4(address) => self.owner_v4(address),
            IpAddr::V6(address) => self.owner_v6(address),
        }
    }

    fn owner_v4(&self, address: Ipv4Addr) -> Owner {
        if address.is_multicast() || address.is_broadcast() || address == self.broadcast() {
            return Owner::Group;
        }
        let [.., last] = address.octets();
        match Member::new(last) {
            Some(member) if self.ipv4(member) == address => Owner::Member(member),
            _ => Owner::Nobody,
        }
    }

    fn owner_v6(&self, address: Ipv6Addr) -> Owner {
        if address.is_multicast() {
            return Owner::Group;
        }
        let [.., last] = address.octets();
        match Member::new(last) {
            Some(member) if self.ipv6(member) == address => Owner::Member(member),
            Some(member) if Self::link_local(member) == address => Owner::Member(member),
            _ => Owner::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_owns_its_three_addresses() {
        let networks = Networks {
            subnet: Ipv4Addr::new(10, 66, 7, 0),
            prefix: "fd12:3456:789a:1::".parse().unwrap(),
        };
        for member in Member::all() {
            let owned: [IpAddr; 3] = [
                networks.ipv4(member).into(),
                networks.ipv6(member).into(),
                Networks::link_local(member).into(),
            ];
            for address in owned {
                assert_eq!(networks.owner(address), Owner::Member(member));
            }
        }
        for (address, owner) in [
            ("10.66.7.0", Owner::Nobody),
            ("10.66.7.251", Owner::Nobody),
            ("10.66.7.255", Owner::Group),
            ("10.66.8.1", Owner::Nobody),
            ("255.255.255.255", Owner::Group),
            ("239.255.255.250", Owner::Group),
            ("ff02::1", Owner::Group),
            ("fd12:3456:789a:1::fb", Owner::Nobody),
            ("fd12:3456:789a:1::1:1", Owner::Nobody),
            ("fe80::101", Owner::Nobody),
        ] {
            assert_eq!(networks.owner(address.parse().unwrap()), owner, "{address}");
        }
    }
}
