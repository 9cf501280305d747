//! NAT gateways in the terms of RFC 4787.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use crate::{
    Error, Families, Host, LinkSpec,
    lab::{Shared, Subnet, Uplink},
    netns::{run, write_sysctl},
};

/// RFC 4787 §4.1: which packets of one inner socket share an outer port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// All of them.
    EndpointIndependent,
    /// Those to the same address and port.
    AddressAndPortDependent,
}

/// RFC 4787 §5: who may send to an outer port that is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtering {
    /// Everybody.
    EndpointIndependent,
    /// Every port of an address that the inner socket sent to through that outer port.
    AddressDependent,
    /// Only the addresses and ports that the inner socket sent to through that outer port.
    AddressAndPortDependent,
}

/// Outer ports of an endpoint-independent NAT: with more inner endpoints than these in one mapping
/// timeout, two of them share a port. On two busy cores nft loads 1,024 in 18 ms, 4,096 in 49 ms.
const POOL: u16 = 2_048;

/// What a gateway does to UDP; the names are those of RFC 3489 §5.
///
/// TCP and ICMP are always mapped and filtered by address and port. There is no hairpinning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// No translation: the LAN has public addresses.
    None,
    FullCone,
    RestrictedCone,
    PortRestrictedCone,
    Symmetric,
    Of(Mapping, Filtering),
}

impl NatKind {
    /// `None` for a gateway that only routes.
    pub fn behaviour(self) -> Option<(Mapping, Filtering)> {
        use {Filtering as F, Mapping as M};
        match self {
            Self::None => None,
            Self::FullCone => Some((M::EndpointIndependent, F::EndpointIndependent)),
            Self::RestrictedCone => Some((M::EndpointIndependent, F::AddressDependent)),
            Self::PortRestrictedCone => Some((M::EndpointIndependent, F::AddressAndPortDependent)),
            Self::Symmetric => Some((M::AddressAndPortDependent, F::AddressAndPortDependent)),
            Self::Of(mapping, filtering) => Some((mapping, filtering)),
        }
    }
}

/// The IPv4 network behind a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lan {
    /// 192.168.N.0/24, N the gateway's own.
    Own,
    /// 192.168.0.0/24, as behind every other gateway that says so.
    Same,
}

/// How a gateway is built.
#[derive(Debug, Clone)]
pub struct NatSpec {
    pub kind: NatKind,
    /// The link to the backbone.
    pub link: LinkSpec,
    /// Ignored for [`NatKind::None`].
    pub lan: Lan,
    /// What the hosts have, [`Families::Ipv4`] by default. Their IPv6 is public, and is routed and
    /// not filtered.
    pub families: Families,
    /// How long a UDP mapping lives without outbound traffic, in whole seconds, at least 1 s.
    /// Default 120 s, the least that RFC 4787 REQ-5 allows.
    pub mapping_timeout: Duration,
}

impl NatSpec {
    pub fn new(kind: NatKind, link: LinkSpec) -> Self {
        Self {
            kind,
            link,
            lan: Lan::Own,
            families: Families::Ipv4,
            mapping_timeout: Duration::from_secs(120),
        }
    }
}

/// What changes when a gateway forgets its mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebind {
    /// Every mapping gets another outer port.
    NewPort,
    /// The gateway's public address changes too, and the old one is gone.
    NewAddress,
}

/// A gateway. Clones name the same gateway.
#[derive(Debug, Clone)]
pub struct Nat {
    shared: Arc<Shared>,
    gateway: Host,
    kind: NatKind,
    mapping_timeout: Duration,
    /// The first three bytes of the LAN.
    lan_prefix: [u8; 3],
    lan_has_v4: bool,
    lan_v6: Option<[u16; 4]>,
    next_host: Arc<AtomicU8>,
    outside: Arc<Mutex<Outside>>,
}

#[derive(Debug)]
struct Outside {
    address: Ipv4Addr,
    rebinds: u32,
}

impl Outside {
    /// Two ranges in turn, so that after a rebind every outer port is a different one.
    fn ports(&self) -> RangeInclusive<u16> {
        match self.rebinds % 2 {
            0 => 10_000..=34_999,
            _ => 35_000..=59_999,
        }
    }
}

impl Nat {
    pub(crate) fn build(
        shared: Arc<Shared>,
        gateway: Host,
        number: u8,
        spec: NatSpec,
    ) -> Result<Self, Error> {
        let lan_prefix = match (spec.kind, spec.lan) {
            (NatKind::None, _) => [198, 19, number],
            (_, Lan::Own) => [192, 168, number],
            (_, Lan::Same) => [192, 168, 0],
        };
        // 0x1000 keeps these apart from the backbone's links.
        let lan_v6 = (spec.families.has_ipv6() && gateway.v6().is_some())
            .then(|| [0x2001, 0xdb8, 0x1000 + u16::from(number), 0]);
        let nat = Self {
            outside: Arc::new(Mutex::new(Outside { address: gateway.v4(), rebinds: 0 })),
            kind: spec.kind,
            mapping_timeout: Duration::from_secs(spec.mapping_timeout.as_secs().max(1)),
            next_host: Arc::new(AtomicU8::new(2)),
            shared,
            gateway,
            lan_prefix,
            lan_has_v4: spec.families.has_ipv4(),
            lan_v6,
        };
        nat.make_lan()?;
        nat.route_lan()?;
        if let Some(behaviour) = nat.kind.behaviour() {
            nat.set_timeouts()?;
            let ports = nat.outside().ports();
            nat.gateway.netns.nft(&nat.ruleset(behaviour, &ports))?;
        }
        Ok(nat)
    }

    /// A host on the LAN behind the gateway.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Lab::host`].
    pub fn host(&self, name: &str, link: LinkSpec) -> Result<Host, Error> {
        let next = |last: u8| (last < u8::MAX).then(|| last + 1);
        let last = self
            .next_host
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .map_err(|_| Error::Full(format!("the LAN of {}", self.gateway.name())))?;
        let v6 = self.lan_v6.filter(|_| link.has_ipv6());
        let subnet = Subnet {
            v4: self.lan_has_v4.then(|| (self.lan_v4(last), self.lan_v4(1))),
            v6: v6.map(|prefix| (in_prefix(prefix, last.into()), in_prefix(prefix, 1))),
        };
        let uplink = Uplink::Lan(&self.gateway.netns);
        self.shared.attach(name, crate::netns::Role::Host, &link, uplink, subnet)
    }

    /// The gateway's own machine, for commands, captures and its link to the backbone.
    pub fn gateway(&self) -> &Host {
        &self.gateway
    }

    /// The address the world sees at this moment.
    pub fn public_v4(&self) -> Ipv4Addr {
        self.outside().address
    }

    pub fn kind(&self) -> NatKind {
        self.kind
    }

    /// Forgets all mappings, as a gateway does that restarts. Forwarding pauses meanwhile, so that
    /// no packet renews an old mapping.
    ///
    /// # Errors
    ///
    /// [`Error::NotTranslating`] for [`NatKind::None`]; [`Error::Full`] after 253 addresses;
    /// [`Error::Command`] if the system refuses.
    pub fn rebind(&self, rebind: Rebind) -> Result<(), Error> {
        let Some(behaviour) = self.kind.behaviour() else {
            return Err(Error::NotTranslating(self.gateway.name().to_owned()));
        };
        let netns = &self.gateway.netns;
        let mut outside = self.outside();
        netns.nft(PAUSE)?;
        if rebind == Rebind::NewAddress {
            outside.address = self.next_address(outside.address)?;
            netns.ip(&format!(
                "addr flush dev eth0 to 198.18.0.0/15\naddr add {}/24 dev eth0\nroute replace default via {}\n",
                outside.address,
                with_last_byte(outside.address, 1),
            ))?;
        }
        // It reports the number of entries it deleted; 0 of them is no failure.
        run(netns.command("conntrack").arg("-F"), "")?;
        outside.rebinds += 1;
        netns.nft(&self.ruleset(behaviour, &outside.ports()))
    }

    fn outside(&self) -> std::sync::MutexGuard<'_, Outside> {
        self.outside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_address(&self, address: Ipv4Addr) -> Result<Ipv4Addr, Error> {
        match address.octets()[3] {
            254.. => Err(Error::Full(format!("rebinds of {}", self.gateway.name()))),
            last => Ok(with_last_byte(address, last + 1)),
        }
    }

    fn lan_v4(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.lan_prefix;
        Ipv4Addr::new(a, b, c, last)
    }

    fn make_lan(&self) -> Result<(), Error> {
        // Without snooping it floods multicast, as most home switches do.
        let mut lines = String::from(
            "link add lan type bridge mcast_snooping 0 forward_delay 0\n\
             link set lan up\n",
        );
        if self.lan_has_v4 {
            lines += &format!("addr add {}/24 dev lan\n", self.lan_v4(1));
        }
        if let Some(prefix) = self.lan_v6 {
            lines += &format!("addr add {}/64 dev lan nodad\n", in_prefix(prefix, 1));
        }
        self.gateway.netns.ip(&lines)
    }

    fn route_lan(&self) -> Result<(), Error> {
        let mut lines = String::new();
        if self.kind == NatKind::None && self.lan_has_v4 {
            lines += &format!("route add {}/24 via {}\n", self.lan_v4(0), self.gateway.v4());
        }
        if let (Some(prefix), Some(gateway)) = (self.lan_v6, self.gateway.v6()) {
            lines += &format!("route add {}/64 via {gateway}\n", in_prefix(prefix, 0));
        }
        if lines.is_empty() {
            return Ok(());
        }
        self.shared.backbone.ip(&lines)
    }

    fn set_timeouts(&self) -> Result<(), Error> {
        let seconds = self.mapping_timeout.as_secs().to_string();
        self.gateway.enter(|| {
            // Before and after the first reply (nf_conntrack-sysctl).
            for key in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
                write_sysctl(&Path::new("/proc/sys/net/netfilter").join(key), &seconds)?;
            }
            Ok(())
        })?
    }

    /// conntrack alone maps each 5-tuple by itself and lets only its answers in. So the gateway
    /// keeps tables beside it: `mapped` gives an inner endpoint the same outer port whatever the
    /// destination, `inner` leads an unsolicited packet back, `contacted` is what a filter asks.
    /// Rules after translation fill them from conntrack's own record of each packet.
    fn ruleset(
        &self,
        (mapping, filtering): (Mapping, Filtering),
        ports: &RangeInclusive<u16>,
    ) -> String {
        let (first, last) = (ports.start(), ports.end());
        let map = match mapping {
            // Counting gives two inner endpoints two outer ports. The map is there because numgen
            // counts in host byte order and nft 1.0.6 takes its result for a port as it is.
            Mapping::EndpointIndependent => {
                let pool: Vec<String> = (0..POOL).map(|n| format!("{n} : {}", first + n)).collect();
                format!(
                    "oifname eth0 snat ip to ip saddr . udp sport map @mapped
                     oifname eth0 meta l4proto udp \
                     masquerade to :numgen inc mod {POOL} map {{ {} }}",
                    pool.join(", ")
                )
            }
            Mapping::AddressAndPortDependent => {
                format!("oifname eth0 meta l4proto udp masquerade to :{first}-{last} fully-random")
            }
        };
        let admit = match filtering {
            Filtering::EndpointIndependent => {
                "iifname eth0 fib daddr type local dnat ip to udp dport map @inner"
            }
            Filtering::AddressDependent => {
                "iifname eth0 fib daddr type local udp dport . ip saddr @contacted \
                 dnat ip to udp dport map @inner"
            }
            Filtering::AddressAndPortDependent => "",
        };
        // An answer leaves by a mapping that somebody outside made use of first.
        let outbound = "oifname eth0 meta l4proto udp ct direction original update";
        let answer = "oifname eth0 meta l4proto udp ct direction reply update";
        let timeout = self.mapping_timeout.as_secs();
        let flags = format!("size 65535; flags dynamic,timeout; timeout {timeout}s;");
        format!(
            "add table ip nat
            delete table ip nat
            table ip nat {{
              map mapped {{
                type ipv4_addr . inet_service : ipv4_addr . inet_service; {flags}
              }}
              map inner {{ type inet_service : ipv4_addr . inet_service; {flags} }}
              set contacted {{ type inet_service . ipv4_addr; {flags} }}
              chain prerouting {{
                type nat hook prerouting priority dstnat; policy accept;
                {admit}
              }}
              chain postrouting {{
                type nat hook postrouting priority srcnat; policy accept;
                {map}
                oifname eth0 masquerade
              }}
              chain learn {{
                type filter hook postrouting priority srcnat + 1; policy accept;
                {outbound} @mapped {{ ct original ip saddr . ct original proto-src : ct reply ip daddr . ct reply proto-dst }}
                {outbound} @inner {{ ct reply proto-dst : ct original ip saddr . ct original proto-src }}
                {outbound} @contacted {{ ct reply proto-dst . ip daddr }}
                {answer} @mapped {{ ct reply ip saddr . ct reply proto-src : ct original ip daddr . ct original proto-dst }}
                {answer} @inner {{ ct original proto-dst : ct reply ip saddr . ct reply proto-src }}
                {answer} @contacted {{ ct original proto-dst . ip daddr }}
              }}
              chain input {{
                type filter hook input priority filter; policy accept;
                ct state established,related accept
                icmp type echo-request accept
                iifname eth0 drop
                meta l4proto udp ip daddr 198.18.0.0/15 drop
              }}
              chain forward {{
                type filter hook forward priority filter; policy accept;
                ct state established,related accept
                ct status dnat accept
                iifname eth0 drop
              }}
            }}
            "
        )
    }
}

/// Drops all that is forwarded; conntrack keeps no record of a packet that was dropped.
const PAUSE: &str = "\
add table ip nat
delete table ip nat
table ip nat { chain forward { type filter hook forward priority filter; policy drop; }; }
";

fn with_last_byte(address: Ipv4Addr, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, last)
}

fn in_prefix([a, b, c, d]: [u16; 4], last: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, last)
}
