//! The LANrage client: a daemon that keeps this machine on its party's virtual LAN, and the command
//! line that talks to it over a local socket. The decisions are the core's
//! ([`lanrage_client_core`]); here are the sockets, the NIC, the clock and the files.
#![forbid(unsafe_code)]

/// The command line.
pub mod cli;

/// The local interface between command line and daemon.
pub mod local;

/// Why a command failed, and with which exit code.
pub mod failure;

/// The daemon.
pub mod daemon;

/// The control service, as a client uses it.
pub mod session;

/// What survives a restart.
pub mod state;

/// UDP towards the relays.
pub mod underlay;

mod streams;

/// WireGuard.
pub mod wg;

/// The virtual NIC.
pub mod nic;

/// What differs between operating systems.
pub mod os;

/// Prometheus.
pub mod metrics;
