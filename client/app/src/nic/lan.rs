use std::net::IpAddr;

use lanrage_client_core::{Networks, Owner};
use lanrage_proto::{Member, SessionId};
use sha2::{Digest as _, Sha256};

use super::MacAddress;

/// A party's LAN from one member's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lan {
    /// The party.
    pub session: SessionId,
    /// The member on this machine.
    pub me: Member,
    /// The party's networks.
    pub networks: Networks,
}

impl Lan {
    /// A member's Ethernet address: locally administered, the same on every member's machine.
    pub fn mac(&self, member: Member) -> MacAddress {
        let digest = Sha256::digest(self.session.0.to_be_bytes());
        MacAddress([0x02, digest[0], digest[1], digest[2], digest[3], member.number()])
    }

    /// The Ethernet address of the member on this machine.
    pub fn own_mac(&self) -> MacAddress {
        self.mac(self.me)
    }

    /// The member whose address it is.
    pub fn member(&self, address: impl Into<IpAddr>) -> Option<Member> {
        match self.networks.owner(address.into()) {
            Owner::Member(member) => Some(member),
            Owner::Group | Owner::Nobody => None,
        }
    }
}

/// Some of a party's members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberSet([u64; 4]);

impl MemberSet {
    /// Adds a member.
    pub const fn insert(&mut self, member: Member) {
        let number = member.number();
        self.0[number as usize / 64] |= 1 << (number % 64);
    }

    /// Whether the member is in the set.
    pub const fn contains(&self, member: Member) -> bool {
        let number = member.number();
        self.0[number as usize / 64] & (1 << (number % 64)) != 0
    }
}

impl FromIterator<Member> for MemberSet {
    fn from_iter<I: IntoIterator<Item = Member>>(members: I) -> Self {
        let mut set = Self::default();
        members.into_iter().for_each(|member| set.insert(member));
        set
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const LAN: Lan = Lan {
        session: SessionId(7),
        me: Member::new(1).unwrap(),
        networks: Networks { subnet: Ipv4Addr::new(10, 66, 5, 0), prefix: Ipv6Addr::LOCALHOST },
    };

    #[test]
    fn macs_are_unicast_local_and_distinct() {
        let macs: std::collections::BTreeSet<_> = Member::all().map(|m| LAN.mac(m).0).collect();
        assert_eq!(macs.len(), 250);
        assert!(macs.iter().all(|mac| mac[0] & 0b11 == 0b10));
        let other = Lan { session: SessionId(8), ..LAN };
        assert_ne!(other.mac(LAN.me), LAN.mac(LAN.me));
    }

    #[test]
    fn set_holds_exactly_what_was_put_in() {
        let odd: MemberSet = Member::all().filter(|m| m.number() % 2 == 1).collect();
        for member in Member::all() {
            assert_eq!(odd.contains(member), member.number() % 2 == 1);
        }
    }
}
