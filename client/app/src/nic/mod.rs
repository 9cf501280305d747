//! The virtual NIC. The seam is layer 3: IP packets in and out, and which members the host may
//! find. Everything Ethernet (frames, ARP, neighbour discovery) stays below it, for those systems
//! whose adapter is a network card.

mod drops;
pub mod ethernet;
mod lan;
pub mod neighbour;
mod network;

pub use drops::{NicDrop, NicDrops};
pub use ethernet::MacAddress;
pub use lan::{Lan, MemberSet};
pub use network::{Network, Overlap, Overlaps};

#[cfg(target_os = "linux")]
pub use crate::os::linux::{Nic, NicError, Read, detour, route_overlaps, watch_underlay};

/// The NIC's name when none is asked for.
pub const DEFAULT_NAME: &str = "lanrage0";
/// Bytes of the largest IP packet the NIC takes: what games expect of a LAN.
pub const MTU: usize = 1500;
