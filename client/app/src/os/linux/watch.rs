use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader};
use tokio::sync::watch;
use tokio::time::sleep;

/// Addresses and routes come in bursts (a DHCP lease is half a dozen messages).
const QUIET: Duration = Duration::from_millis(200);

/// Watches the host's addresses and routes; the channel's value counts their changes, bursts as
/// one. Those of the interface `own` do not count.
///
/// # Errors
/// rtnetlink cannot be asked.
pub fn watch_underlay(own: String) -> io::Result<watch::Receiver<u64>> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, _handle, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::spawn(connection);
    let (changes, receiver) = watch::channel(0);
    tokio::spawn(async move {
        let mut own_index = None;
        while let Some((message, _)) = messages.next().await {
            let mut changed = concerns_underlay(&message, &own, &mut own_index);
            if !changed {
                continue;
            }
            sleep(QUIET).await;
            while let Ok((message, _)) = messages.try_recv() {
                changed |= concerns_underlay(&message, &own, &mut own_index);
            }
            changes.send_modify(|count| *count += 1);
            if changes.is_closed() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Links only teach the index of `own`: a link that goes down takes its routes with it.
fn concerns_underlay(
    message: &NetlinkMessage<RouteNetlinkMessage>,
    own: &str,
    own_index: &mut Option<u32>,
) -> bool {
    if matches!(message.payload, NetlinkPayload::Overrun(_)) {
        // More changes than the socket could hold (ENOBUFS): some are lost.
        return true;
    }
    let NetlinkPayload::InnerMessage(message) = &message.payload else { return false };
    if let RouteNetlinkMessage::NewLink(link) = message {
        let is_own =
            |name: &LinkAttribute| matches!(name, LinkAttribute::IfName(name) if name == own);
        if link.attributes.iter().any(is_own) {
            *own_index = Some(link.header.index);
        }
        return false;
    }
    let index = if let RouteNetlinkMessage::NewAddress(address)
    | RouteNetlinkMessage::DelAddress(address) = message
    {
        Some(address.header.index)
    } else if let RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) =
        message
    {
        // What follows from addresses and neighbours is told by those.
        if route.header.table != RouteHeader::RT_TABLE_MAIN {
            return false;
        }
        let output = |attribute: &RouteAttribute| {
            if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None }
        };
        route.attributes.iter().find_map(output)
    } else {
        return false;
    };
    index.is_none() || index != *own_index
}
