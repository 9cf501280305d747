//! Where a lease is reached.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::ids::LocalId;

/// A client's address, and the relay's own address that it talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// IPv4 addresses are v6-mapped, as a dual-stack socket reports them.
    pub ip: Ipv6Addr,
    pub port: u16,
    pub local: LocalId,
}

impl Endpoint {
    /// The scope of a link-local address is dropped: clients come by routed addresses.
    #[must_use]
    pub fn new(remote: SocketAddr, local: LocalId) -> Self {
        let ip = match remote.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self { ip, port: remote.port(), local }
    }

    /// The client's address, in the family of its socket.
    #[must_use]
    pub fn remote(self) -> SocketAddr {
        SocketAddr::new(self.ip.to_canonical(), self.port)
    }
}
