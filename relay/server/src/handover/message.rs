use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Changes with the messages or with what they carry. An older program's first message is still
/// understood as far as this number.
pub(super) const VERSION: u32 = 2;

/// The listener of `/metrics`.
pub(crate) const METRICS: &str = "metrics";
/// The listener of the admin socket.
pub(crate) const ADMIN: &str = "admin";

/// What two processes of a relay say to each other, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// With the table's memory, the binder's, the lock, and the listeners in order. The sockets
    /// follow.
    Offer(Offer),
    /// With the next of the sockets.
    Sockets,
    /// The new process can go on.
    Ready,
    /// The new process cannot; why, and what to do.
    Refused(String),
    /// With the frozen binder.
    Frozen,
    /// The new process has the table.
    Adopted,
    /// Nobody receives. With what the shards leave.
    Go,
    /// The new process receives.
    Armed,
    /// The old process has let go.
    Yours,
}

/// What the relay is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) version: u32,
    /// As configured.
    pub(super) listen: Vec<SocketAddr>,
    /// Of data.
    pub(super) shards: usize,
    /// As its metric says.
    pub(super) steering: String,
    /// Sets of sockets: the shards', and that of control frames if there is one.
    pub(super) sets: usize,
    pub(super) leases: u32,
    /// Names, as many as descriptors.
    pub(super) listeners: Vec<String>,
    /// CLOCK_MONOTONIC at the relay's start, in nanoseconds.
    pub(super) clock_origin_ns: u64,
}
