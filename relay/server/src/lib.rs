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

/// What operators ask of a running relay: the server's side.
pub mod admin;

/// What operators ask of a running relay: the command line.
pub mod ctl;

/// What is logged.
pub mod logs;

mod check;
pub use check::check;

/// One process of a relay hands over to the next.
pub mod handover;

mod run;
pub use run::{Started, Stop, run};

mod backoff;
mod binder;
mod clock;
mod control;
mod egress;
mod enrol;
mod every_minute;
mod http;
mod kept;
mod mesh;
mod metrics;
mod operators;
mod published;
mod queues;
mod role;
mod shard;
/// The relay's sockets, and which of them the kernel gives a datagram to.
pub mod steering;
mod streams;
mod systemd;
mod threads;
