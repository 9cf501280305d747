//! Traffic that a host loses without notice.

use std::net::IpAddr;

use crate::{Direction, Error, Families, Host};

/// Which protocol a fault takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    #[default]
    Any,
    Udp,
    Tcp,
}

/// The traffic a fault takes; the default is all IP traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Ignored with a `remote`.
    pub families: Families,
    pub protocol: Protocol,
    /// The other end's address; `None` is any.
    pub remote: Option<IpAddr>,
    /// The other end's port; `None` is any. Used with [`Protocol::Udp`] and [`Protocol::Tcp`].
    pub remote_port: Option<u16>,
}

impl Traffic {
    /// All traffic with one address.
    pub fn with(remote: impl Into<IpAddr>) -> Self {
        Self { remote: Some(remote.into()), ..Self::default() }
    }

    /// All traffic of an address family, as where one of two uplinks fails.
    pub fn of(families: Families) -> Self {
        Self { families, ..Self::default() }
    }

    /// All UDP, as where a firewall lets only TCP pass.
    pub fn udp() -> Self {
        Self { protocol: Protocol::Udp, ..Self::default() }
    }
}

/// Made whole each time; `add` of what exists changes nothing (nft(8)).
///
/// The chains hang on the device, not on the output hook: there a drop would come back to the
/// sender as EPERM (`NF_HOOK` in `ip_local_out`), which a broken network never does.
const CHAINS: &str = "\
add table netdev faults
add chain netdev faults up { type filter hook egress device \"eth0\" priority 0; policy accept; }
add chain netdev faults down { type filter hook ingress device \"eth0\" priority 0; policy accept; }
";

impl Host {
    /// Drops one direction's matching packets at the host's interface, until [`Host::heal`].
    ///
    /// A socket with IP_RECVERR set sees ENOBUFS for what it sends; others see nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] if nft refuses, as on a kernel without CONFIG_NETFILTER_EGRESS.
    pub fn cut(&self, direction: Direction, traffic: Traffic) -> Result<(), Error> {
        self.netns.nft(&format!("{CHAINS}{}", rule(direction, traffic)))
    }

    /// [`Host::cut`] in both directions.
    ///
    /// # Errors
    ///
    /// Those of [`Host::cut`].
    pub fn isolate(&self, traffic: Traffic) -> Result<(), Error> {
        let up = rule(Direction::Up, traffic);
        let down = rule(Direction::Down, traffic);
        self.netns.nft(&format!("{CHAINS}{up}{down}"))
    }

    /// Ends all cuts of this host.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] if nft refuses.
    pub fn heal(&self) -> Result<(), Error> {
        self.netns.nft(&format!("{CHAINS}delete table netdev faults\n"))
    }
}

fn rule(direction: Direction, traffic: Traffic) -> String {
    let (chain, end) = match direction {
        Direction::Up => ("up", "d"),
        Direction::Down => ("down", "s"),
    };
    let mut rule = format!("add rule netdev faults {chain}");
    match traffic.remote {
        None => {
            rule += match traffic.families {
                Families::Ipv4 => " meta protocol ip",
                Families::Ipv6 => " meta protocol ip6",
                Families::Both => " meta protocol { ip, ip6 }",
            };
        }
        Some(IpAddr::V4(remote)) => rule += &format!(" ip {end}addr {remote}"),
        Some(IpAddr::V6(remote)) => rule += &format!(" ip6 {end}addr {remote}"),
    }
    let protocol = match traffic.protocol {
        Protocol::Any => None,
        Protocol::Udp => Some("udp"),
        Protocol::Tcp => Some("tcp"),
    };
    if let Some(protocol) = protocol {
        rule += &format!(" meta l4proto {protocol}");
        if let Some(port) = traffic.remote_port {
            rule += &format!(" th {end}port {port}");
        }
    }
    rule + " drop\n"
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn rules_name_the_other_end() {
        assert_eq!(
            rule(Direction::Up, Traffic::with(Ipv4Addr::new(198, 18, 1, 2))),
            "add rule netdev faults up ip daddr 198.18.1.2 drop\n"
        );
        let dns = Traffic {
            protocol: Protocol::Udp,
            remote: Some(Ipv6Addr::LOCALHOST.into()),
            remote_port: Some(53),
            ..Traffic::default()
        };
        assert_eq!(
            rule(Direction::Down, dns),
            "add rule netdev faults down ip6 saddr ::1 meta l4proto udp th sport 53 drop\n"
        );
        assert_eq!(
            rule(Direction::Down, Traffic::of(Families::Ipv6)),
            "add rule netdev faults down meta protocol ip6 drop\n"
        );
        assert_eq!(
            rule(Direction::Up, Traffic::udp()),
            "add rule netdev faults up meta protocol { ip, ip6 } meta l4proto udp drop\n"
        );
    }
}
