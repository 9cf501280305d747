use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::link::kernel_error;
use super::netlink;
use crate::nic::{Network, Overlap, Overlaps};

/// Routes to networks as small as LANrage's own range, 10.66.0.0/16, or smaller, were made for what
/// lies there. Wider ones (of a VPN, of a company's gateway) are there for want of a better route.
const IPV4_RANGE_LEN: u8 = 16;
/// A party's /64 lies in a site of its own (RFC 4193 §3.1).
const IPV6_RANGE_LEN: u8 = 48;
/// Shorter prefixes are default routes in parts, as VPNs set them (0.0.0.0/1, 2000::/3).
const PREFIX_LEN_MIN: u8 = 7;

/// The routes and addresses of this host, but those of the interface `own`, that overlap a party's
/// network.
///
/// # Errors
/// rtnetlink cannot be asked.
pub async fn route_overlaps(party: Network, own: &str) -> io::Result<Overlaps> {
    let handle = netlink()?;
    // Of all tables, the `local` one too: it has the host's addresses.
    let all = match party.address {
        IpAddr::V4(_) => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpAddr::V6(_) => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    let mut routes = handle.route().get(all).execute();
    let mut found = Overlaps::default();
    while let Some(route) = routes.try_next().await.map_err(kernel_error)? {
        let Some((network, index)) = target(&route) else { continue };
        if network.prefix_len < PREFIX_LEN_MIN || !network.overlaps(&party) {
            continue;
        }
        let best =
            if is_conflict(&network, &route) { &mut found.conflict } else { &mut found.wider };
        let most_specific = best.as_ref().map(|best| best.network.prefix_len);
        if most_specific >= Some(network.prefix_len) {
            continue;
        }
        let interface = interface_name(&handle, index).await?;
        if interface != own {
            *best = Some(Overlap { network, interface });
        }
    }
    Ok(found)
}

/// The route by which this host sends to `address`, when it does not lead to the interface `own`:
/// policy rules may ask another table before the one with the NIC's routes.
///
/// # Errors
/// rtnetlink cannot be asked.
pub async fn detour(address: Ipv4Addr, own: u32) -> io::Result<Option<Overlap>> {
    let handle = netlink()?;
    let mut question =
        RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, 32).build();
    // Tells of the route itself, not of what follows from it for this address.
    question.header.flags |= RouteFlags::FibMatch;
    let answer = handle.route().get(question).execute().try_next().await.map_err(kernel_error)?;
    match answer.as_ref().and_then(target) {
        Some((network, index)) if index != own => {
            Ok(Some(Overlap { network, interface: interface_name(&handle, index).await? }))
        }
        _ => Ok(None),
    }
}

/// Whether a route that overlaps a party's network cannot stand beside it.
fn is_conflict(network: &Network, route: &RouteMessage) -> bool {
    let range_len = if network.address.is_ipv4() { IPV4_RANGE_LEN } else { IPV6_RANGE_LEN };
    let has_gateway = route.attributes.iter().any(|attribute| {
        matches!(
            attribute,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_)
        )
    });
    // The network of an address of this host: the kernel routes to it by itself, or leaves that to
    // the client of DHCP or router advertisements (IFA_F_NOPREFIXROUTE).
    let made_for_an_address = matches!(
        route.header.protocol,
        RouteProtocol::Kernel | RouteProtocol::Dhcp | RouteProtocol::Ra
    );
    let is_connected = made_for_an_address && !has_gateway;
    network.prefix_len >= range_len || is_connected
}

/// The network a route is for and the (first) interface it leads to, if it leads anywhere.
fn target(route: &RouteMessage) -> Option<(Network, u32)> {
    let leads_somewhere = matches!(route.header.kind, RouteType::Unicast | RouteType::Local);
    let mut address = None;
    let mut index = None;
    for attribute in &route.attributes {
        if let RouteAttribute::Destination(RouteAddress::Inet(ipv4)) = attribute {
            address = Some(IpAddr::from(*ipv4));
        } else if let RouteAttribute::Destination(RouteAddress::Inet6(ipv6)) = attribute {
            address = Some(IpAddr::from(*ipv6));
        } else if let RouteAttribute::Oif(oif) = attribute {
            index = Some(*oif);
        } else if let RouteAttribute::MultiPath(hops) = attribute {
            index = hops.first().map(|hop| hop.interface_index);
        }
    }
    let network = Network { address: address?, prefix_len: route.header.destination_prefix_length };
    index.filter(|_| leads_somewhere).map(|index| (network, index))
}

async fn interface_name(handle: &Handle, index: u32) -> io::Result<String> {
    let query = handle.link().get().match_index(index);
    let link = query.execute().try_next().await.map_err(kernel_error)?;
    let name = link.into_iter().flat_map(|link| link.attributes).find_map(|attribute| {
        if let LinkAttribute::IfName(name) = attribute { Some(name) } else { None }
    });
    Ok(name.unwrap_or_else(|| format!("interface {index}")))
}
