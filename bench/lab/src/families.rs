//! Which of the two Internet Protocols is meant.

/// One address family, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Families {
    Ipv4,
    Ipv6,
    #[default]
    Both,
}

impl Families {
    pub(crate) fn has_ipv4(self) -> bool {
        self != Self::Ipv6
    }

    pub(crate) fn has_ipv6(self) -> bool {
        self != Self::Ipv4
    }
}
