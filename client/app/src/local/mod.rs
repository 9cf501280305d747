//! The daemon's local interface: JSON lines over a Unix socket, for root and the daemon's own user.

pub mod client;
pub mod protocol;
pub mod server;

/// Where the socket is when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/lanrage/daemon.sock";
