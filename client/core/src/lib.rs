//! Paths, LAN semantics and memberships of a client: bytes and now in, actions out.
//!
//! [`Client`] is one member of the active party. It has no clock, no socket, no NIC and no
//! WireGuard of its own; see its driving contract. `§` in a comment refers to `docs/src/protocol.md`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

/// The client: its driving contract, input, output and questions.
mod client;
pub use client::{Client, Config, ConfigError, KickError, PingError};

/// What a client tells the program around it.
pub mod event;
pub use event::{Event, PingId, Transmit};

/// Snapshots for `status`.
pub mod status;
pub use status::{Connection, LeaseStatus, MemberStatus, PathStatus, Quality, RelayName};

/// The seam to WireGuard.
pub mod tunnel;
pub use tunnel::{Received, Refused, Tunnel, TunnelFactory, TunnelParameters};

/// A member's addresses.
pub mod addresses;
pub use addresses::{Networks, Owner};

/// Drops by reason, and totals.
pub mod counters;
pub use counters::{Counters, DropReason};

// Who is in the party.
mod membership;
// Bindings at relays.
mod lease;
pub use lease::stream::{stream_address, stream_relay};
// Another member, and the paths to it.
mod paths;
mod peer;
mod quality;
// What crosses between NIC and tunnels.
mod nic;
// What a call has produced.
mod outbox;
