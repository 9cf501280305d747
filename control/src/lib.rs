//! The LANrage control service: devices, parties, invites, tickets, kicks, and the pool of relays.
//! It learns neither what members say nor the secrets that let them say it.
#![forbid(unsafe_code)]

/// Why the program ends, and with which code.
mod failure;
pub use failure::Failure;

/// Flags, environment, configuration file.
mod config;
pub use config::{Config, LogFormat, Options};

/// The command line.
mod cli;
pub use cli::{Cli, Command, PartyCommand, RelayCommand};

/// What the commands do.
mod commands;
pub use commands::execute;

/// How relays are listed for an operator.
mod listing;

/// The service's time.
mod clock;
pub use clock::Clock;

/// The operating system's randomness.
mod random;

/// The end of the service.
mod stopping;

/// The state directory.
mod state;
pub use state::{Lock, StateDir};

mod domain;

mod store;

mod hub;

mod fleet;

mod network;

mod limiter;

mod service;

mod api;

mod server;
pub use server::Server;
