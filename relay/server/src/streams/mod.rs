//! Members whose network blocks UDP: the same datagrams over TLS (`docs/src/protocol.md` §11).
//!
//! One thread serves all streams. It decides by a `lanrage_relay_core::Shard` of its own, as every
//! shard does, so that a lease at a stream passes the same checks, rates and counts. What shards and
//! the binder have for a stream comes by the [`Outlet`].

use std::time::Duration;

mod listen;
pub(crate) use listen::Listeners;

mod tls;
pub(crate) use tls::server_config;

mod outlet;
pub(crate) use outlet::Outlet;

mod counts;
pub(crate) use counts::{Closed, Counts, Dropped, Refused, StreamsView};

mod thread;
pub(crate) use thread::StreamsThread;

mod connection;
mod exchange;
mod gate;
mod serve;

/// Streams at once, below 20 KiB each while they are quiet, and [`WAITING_LEN`] more when stalled.
const STREAMS_MAX: usize = 4096;
/// Streams at once from a /24 of IPv4 or a /56 of IPv6: UDP is blocked for whole campuses.
const STREAMS_PER_PREFIX: u16 = 256;
/// From the first byte to the end of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream is closed when no datagram comes for this long: a lease at it would have ended at 30 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A stream is closed when the kernel takes nothing for this long.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes that wait for a stream whose peer reads too slowly: 1.3 s of voice and game traffic at
/// 1.6 Mbit/s. More would only be older.
const WAITING_LEN: usize = 256 << 10;
