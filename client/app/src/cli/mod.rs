//! The command line: everything but `daemon` is a request to the daemon.

mod args;
mod commands;
mod output;
mod start;

pub use args::{Args, Command, DaemonArgs, LocalArgs, PartyCommand};
pub use commands::run;
pub use output::printable;
