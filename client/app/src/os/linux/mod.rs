//! Linux: a TAP device, configured over rtnetlink.
//!
//! Everything the client changes hangs on the TAP's interface: its addresses, its routes, its
//! sysctls. A TAP without TUNSETPERSIST goes with the last descriptor (`tun_detach` in
//! drivers/net/tun.c), and they go with it: also after SIGKILL nothing is left to undo.

mod link;
mod nic;
mod overlap;
mod watch;

pub use link::NicError;
pub use nic::{Nic, Read};
pub use overlap::{detour, route_overlaps};
pub use watch::watch_underlay;

use rtnetlink::Handle;

/// A connection to rtnetlink(7) in the network namespace of the calling thread.
fn netlink() -> std::io::Result<Handle> {
    let (connection, handle, _unsolicited) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}
