use std::fmt;
use std::io;
use std::net::Ipv4Addr;

use futures_util::TryStreamExt as _;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use super::link::kernel_error;
use super::netlink;

const PARTY_PREFIX_LEN: u8 = 24;
/// Shorter prefixes are default routes in parts, as VPNs set them (0.0.0.0/1 and 128.0.0.0/1).
const PREFIX_LEN_MIN: u8 = 8;

/// A local route that shares addresses with a party's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The route's network address; the host's own address with 32 bits.
    pub network: Ipv4Addr,
    /// The route's prefix length.
    pub prefix_len: u8,
    /// Where it leads.
    pub interface: String,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} on {}", self.network, self.prefix_len, self.interface)
    }
}

/// The most specific route or address of this host, but those of the interface `own`, that
/// overlaps the /24 at `subnet`.
///
/// # Errors
/// rtnetlink cannot be asked.
pub async fn route_overlap(subnet: Ipv4Addr, own: &str) -> io::Result<Option<Overlap>> {
    let handle = netlink()?;
    // Of all tables, the `local` one too: it has the host's addresses.
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut routes = handle.route().get(all).execute();
    let mut found: Option<(Overlap, u32)> = None;
    while let Some(route) = routes.try_next().await.map_err(kernel_error)? {
        let Some((network, prefix_len, index)) = unicast_route(&route) else { continue };
        let specific = found.as_ref().is_none_or(|(best, _)| prefix_len > best.prefix_len);
        if !specific || !overlaps(subnet, network, prefix_len) {
            continue;
        }
        let query = handle.link().get().match_index(index);
        let link = query.execute().try_next().await.map_err(kernel_error)?;
        let name = link.into_iter().flat_map(|link| link.attributes).find_map(interface_name);
        let interface = name.unwrap_or_else(|| format!("interface {index}"));
        if interface != own {
            found = Some((Overlap { network, prefix_len, interface }, index));
        }
    }
    Ok(found.map(|(overlap, _)| overlap))
}

fn overlaps(subnet: Ipv4Addr, network: Ipv4Addr, prefix_len: u8) -> bool {
    if prefix_len < PREFIX_LEN_MIN {
        return false;
    }
    let mask = u32::MAX << (32 - u32::from(prefix_len.min(PARTY_PREFIX_LEN)));
    u32::from(subnet) & mask == u32::from(network) & mask
}

fn unicast_route(route: &RouteMessage) -> Option<(Ipv4Addr, u8, u32)> {
    let leads_somewhere = matches!(route.header.kind, RouteType::Unicast | RouteType::Local);
    let mut network = None;
    let mut index = None;
    for attribute in &route.attributes {
        if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute {
            network = Some(*address);
        } else if let RouteAttribute::Oif(oif) = attribute {
            index = Some(*oif);
        }
    }
    let prefix_len = route.header.destination_prefix_length;
    network
        .zip(index)
        .filter(|_| leads_somewhere)
        .map(|(network, index)| (network, prefix_len, index))
}

fn interface_name(attribute: LinkAttribute) -> Option<String> {
    if let LinkAttribute::IfName(name) = attribute { Some(name) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_either_way_round_but_not_with_default_routes() {
        let subnet = Ipv4Addr::new(10, 66, 5, 0);
        for (network, prefix_len, expected) in [
            ([10, 66, 5, 0], 24, true),
            ([10, 66, 5, 128], 25, true),
            ([10, 66, 5, 77], 32, true),
            ([10, 66, 0, 0], 16, true),
            ([10, 0, 0, 0], 8, true),
            ([10, 66, 4, 0], 24, false),
            ([10, 66, 6, 0], 23, false),
            ([10, 66, 4, 0], 23, true),
            ([192, 168, 5, 0], 24, false),
            ([0, 0, 0, 0], 0, false),
            ([0, 0, 0, 0], 1, false),
        ] {
            let found = overlaps(subnet, Ipv4Addr::from(network), prefix_len);
            assert_eq!(found, expected, "{network:?}/{prefix_len}");
        }
    }
}
