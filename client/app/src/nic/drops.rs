/// Why a frame or packet did not cross the NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum NicDrop {
    /// The frame is shorter than its headers say, or its lengths contradict each other.
    Malformed,
    /// Neither IP nor ARP.
    EtherType,
    /// The frame's source is not the NIC's own address.
    ForeignSource,
    /// ARP or neighbour discovery for an address that no other online member has.
    NobodyAnswers,
    /// More ARP and neighbour discovery than a host has reason to ask.
    NeighbourLimit,
    /// The host does not take packets as fast as they come.
    HostFull,
    /// The host refused the packet.
    HostRefused,
}

impl NicDrop {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Malformed,
        Self::EtherType,
        Self::ForeignSource,
        Self::NobodyAnswers,
        Self::NeighbourLimit,
        Self::HostFull,
        Self::HostRefused,
    ];

    /// The metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "nic_malformed",
            Self::EtherType => "nic_ether_type",
            Self::ForeignSource => "nic_foreign_source",
            Self::NobodyAnswers => "nic_nobody_answers",
            Self::NeighbourLimit => "nic_neighbour_limit",
            Self::HostFull => "nic_host_full",
            Self::HostRefused => "nic_host_refused",
        }
    }
}

/// One counter a reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NicDrops([u64; NicDrop::ALL.len()]);

impl NicDrops {
    /// One more.
    pub const fn count(&mut self, reason: NicDrop) {
        self.0[reason as usize] += 1;
    }

    /// How many so far.
    pub const fn of(&self, reason: NicDrop) -> u64 {
        self.0[reason as usize]
    }

    /// Each reason and its count.
    pub fn iter(&self) -> impl Iterator<Item = (NicDrop, u64)> {
        NicDrop::ALL.into_iter().map(|reason| (reason, self.of(reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_order_of_all() {
        for (index, reason) in NicDrop::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
