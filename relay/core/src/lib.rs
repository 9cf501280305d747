//! What a relay does with a datagram: bytes and now in, verdicts out.
//!
//! [`shard`] forwards: it reads the lease table and keeps counts, one value a core. [`binder`] binds:
//! it owns the table's writer. Neither has a clock, a socket or a thread, and they share nothing but
//! the table; the shell carries datagrams from shards to the binder. `§` refers to
//! `docs/src/protocol.md`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

/// Every reason to forward a datagram nowhere.
pub mod drops;
pub use drops::{DropReason, Fault};

/// Token buckets.
pub mod rate;

/// Rate classes.
pub mod classes;
pub use classes::{ClassLimits, Classes, Limits};
/// Data between relays: keys, and what was seen.
pub mod mesh;

/// Fairness while the way out is short.
pub mod egress;
pub use egress::SentTotals;

/// The hot path: one shard's decisions.
pub mod shard;
pub use shard::{Answer, Class, Counters, Shard, Stun, Verdict, runs};

/// What is not data: from HELLO to a lease's end.
pub mod binder;
pub use binder::{
    Ban, Binder, BinderCounters, Cap, CapError, Caps, Draining, End, GivenLease, Identity,
    KeyPrefix, LeaseView, Now, Outcome, Transmit,
};

/// Leases at streams.
pub mod stream;
pub use stream::{STREAM_LOCAL, stream_address, stream_number};

mod ids;
