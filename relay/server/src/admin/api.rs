use serde::{Deserialize, Serialize};

/// Paths, all `POST` with a JSON object, `{}` where nothing need be said.
pub mod path {
    /// [`super::Status`].
    pub const STATUS: &str = "/v1/status";
    /// [`super::Upgraded`].
    pub const UPGRADE: &str = "/v1/upgrade";
}

/// A request without particulars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// The body of every answer but 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, and what to do.
    pub error: String,
}

/// Another process serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The new process.
    pub pid: u32,
}

/// The relay as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The relay's process.
    pub pid: u32,
    /// Its number; none before it has enrolled.
    pub relay: Option<u16>,
    /// Its pool's number.
    pub pool: Option<u16>,
    /// Since its start.
    pub uptime_s: u64,
    /// How shards talk to the kernel.
    pub backend: String,
    /// Why `/readyz` says no; none if it says yes.
    pub not_ready: Option<String>,
    /// Whether the stream from control lives.
    pub control_connected: bool,
    /// Leases that are their members' own.
    pub leases: u64,
    /// Leases that no frame has used yet.
    pub leases_pending: u64,
    /// Leases there is room for.
    pub leases_capacity: u64,
    /// Sessions with a lease.
    pub sessions: u64,
}
