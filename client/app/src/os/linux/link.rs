use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use futures_util::TryStreamExt as _;
use lanrage_client_core::Networks;
use rtnetlink::packet_core::ErrorMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use crate::nic::{Lan, MTU};

/// Prefix lengths of the party's networks.
const IPV4_PREFIX_LEN: u8 = 24;
const IPV6_PREFIX_LEN: u8 = 64;
/// Of every route to the NIC: better than what network managers give physical cards (100 and up),
/// so that broadcasts and multicasts of games leave here; there is no default route to take over.
const METRIC: u32 = 50;

/// Why the NIC is not up. What had been made is gone again.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// No CAP_NET_ADMIN.
    #[error("no right to make the network interface {name}: run as root or grant CAP_NET_ADMIN")]
    Rights {
        /// The interface.
        name: String,
    },
    /// The kernel has no TUN/TAP driver, or the container does not show it.
    #[error("there is no /dev/net/tun: load the module `tun`, or give the container the device")]
    NoDriver,
    /// Another program's interface.
    #[error("an interface {name} exists already: name another one with --nic")]
    NameTaken {
        /// The interface.
        name: String,
    },
    /// Longer than 15 bytes, empty, or with a character interfaces cannot have.
    #[error("{name:?} cannot name an interface: use 1 to 15 letters, digits and hyphens")]
    BadName {
        /// The interface.
        name: String,
    },
    /// The kernel refused a step.
    #[error("cannot {action} of {name}: {source}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The interface.
        name: String,
        /// Why not.
        source: io::Error,
    },
}

/// Makes a fresh TAP look like a member's network card on the party's LAN.
pub(super) async fn configure(handle: &Handle, name: &str, lan: &Lan) -> Result<u32, NicError> {
    let refused = |action| {
        move |error| NicError::Refused {
            action,
            name: name.to_owned(),
            source: kernel_error(error),
        }
    };
    let link = find(handle, name).await.map_err(refused("read the index"))?;
    let index = link.map(|link| link.header.index).ok_or_else(|| NicError::Refused {
        action: "read the index",
        name: name.to_owned(),
        source: io::ErrorKind::NotFound.into(),
    })?;

    let has_ipv6 = Path::new("/proc/sys/net/ipv6/conf").join(name).exists();
    let takes_ipv6 = has_ipv6 && !is_ipv6_disabled(name);
    if !takes_ipv6 {
        tracing::info!("IPv6 is disabled on this host: the LAN is IPv4 only");
    }
    let mut card = LinkUnspec::new_with_index(index)
        .address(lan.own_mac().0.to_vec())
        .mtu(MTU as u32)
        .multicast(true);
    if has_ipv6 {
        // fe80::<member> is the link-local address; the kernel must not make up another.
        let no_address = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let specific = AfSpecUnspec::Inet6(vec![no_address]);
        card = card.append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![specific]));
    }
    handle.link().set(card.build()).execute().await.map_err(refused("set the MAC and MTU"))?;
    set_sysctls(name, has_ipv6);

    let up = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(up).execute().await.map_err(refused("bring up the link"))?;
    let networks = &lan.networks;
    let mut addresses = vec![(IpAddr::from(networks.ipv4(lan.me)), IPV4_PREFIX_LEN)];
    if takes_ipv6 {
        addresses.push((networks.ipv6(lan.me).into(), IPV6_PREFIX_LEN));
        addresses.push((Networks::link_local(lan.me).into(), IPV6_PREFIX_LEN));
    }
    for (address, prefix_len) in addresses {
        let mut request = handle.address().add(index, address, prefix_len);
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::RoutePriority(METRIC));
        if address.is_ipv6() {
            // Control gives each number to one device: there is no duplicate to wait for.
            attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.map_err(refused("add an address"))?;
    }
    for (destination, prefix_len) in [(Ipv4Addr::BROADCAST, 32), (Ipv4Addr::new(224, 0, 0, 0), 4)] {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(destination, prefix_len)
            .output_interface(index)
            .scope(RouteScope::Link)
            .protocol(RouteProtocol::Static)
            .priority(METRIC)
            .build();
        handle.route().add(route).execute().await.map_err(refused("add a route"))?;
    }
    Ok(index)
}

/// Whether the interface is up and has the member's IPv4 address.
pub(super) async fn is_intact(
    handle: &Handle,
    name: &str,
    lan: &Lan,
) -> Result<bool, rtnetlink::Error> {
    let Some(link) = find(handle, name).await? else { return Ok(false) };
    if !link.header.flags.contains(LinkFlags::Up) {
        return Ok(false);
    }
    let own = AddressAttribute::Local(lan.networks.ipv4(lan.me).into());
    let index = link.header.index;
    let mut addresses = handle.address().get().set_link_index_filter(index).execute();
    while let Some(address) = addresses.try_next().await? {
        if address.header.index == index && address.attributes.contains(&own) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A new interface inherits `net.ipv6.conf.default.disable_ipv6`, which `all` sets as well; the
/// kernel then refuses its IPv6 addresses with EACCES (`addrconf_add_dev` in net/ipv6/addrconf.c).
fn is_ipv6_disabled(name: &str) -> bool {
    let setting = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"));
    setting.is_ok_and(|setting| setting.trim() != "0")
}

/// The interface of that name, if there is one.
pub(super) async fn find(
    handle: &Handle,
    name: &str,
) -> Result<Option<LinkMessage>, rtnetlink::Error> {
    let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    match found {
        Err(rtnetlink::Error::NetlinkError(error)) if is_absent(&error) => Ok(None),
        found => found,
    }
}

fn is_absent(error: &ErrorMessage) -> bool {
    let error = error.to_io().raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    error == Some(rustix::io::Errno::NODEV)
}

/// The kernel's errno, where the error has one.
pub(super) fn kernel_error(error: rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(error) = &error {
        return error.to_io();
    }
    io::Error::other(error)
}

/// Nobody on the LAN is a router. Router advertisements and redirects do not cross the tunnels
/// either, so a read-only /proc/sys (`ProtectKernelTunables=`) costs nothing but a warning.
fn set_sysctls(name: &str, has_ipv6: bool) {
    const IPV4: &[(&str, &str)] = &[("accept_redirects", "0"), ("send_redirects", "0")];
    const IPV6: &[(&str, &str)] =
        &[("accept_ra", "0"), ("accept_redirects", "0"), ("router_solicitations", "0")];
    for (family, sysctls) in [("ipv4", IPV4), ("ipv6", if has_ipv6 { IPV6 } else { &[] })] {
        for (key, value) in sysctls {
            let path = format!("/proc/sys/net/{family}/conf/{name}/{key}");
            if let Err(error) = fs::write(&path, value) {
                tracing::warn!(path, value, %error, "cannot set a sysctl of the NIC");
            }
        }
    }
}
