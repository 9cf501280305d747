//! The LANrage relay: shards, binder, control link, metrics.
//!
//! [`run()`] is the whole program but for its arguments. Datagrams go shard → kernel, and shard →
//! queues → binder → kernel; everything else is the slow side, one tokio thread.
#![forbid(unsafe_code)]

/// Settings from flags, environment and file, and the configuration they resolve to.
pub mod config;
pub use config::{Config, LogFormat, Settings};

/// What ends the program, and with which exit code.
pub mod failure;
pub use failure::Failure;

/// What outlives the process: keys, enrolment, what control said last.
pub mod state;

mod check;
pub use check::check;

mod run;
pub use run::{Started, run};

mod backoff;
mod binder;
mod clock;
mod control;
mod enrol;
mod every_minute;
mod http;
mod kept;
mod mesh;
mod metrics;
mod published;
mod queues;
mod role;
mod shard;
mod steering;
