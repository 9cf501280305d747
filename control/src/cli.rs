use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::Options;
use crate::failure::EXIT_CODES;

/// The LANrage control service: parties, invites, tickets, and the pool of relays.
#[derive(Debug, Parser)]
#[command(name = "lanrage-control", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// Configuration file in TOML [default: control.toml in the state directory, if there]
    #[arg(long, global = true, env = "LANRAGE_CONTROL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Settings.
    #[command(flatten)]
    pub options: Options,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the state directory, and say what to do next
    Init,
    /// Serve until SIGTERM or SIGINT; makes the state directory when it is not there
    Run,
    /// Print the address that users give to `lanrage party create --server`
    Address,
    /// Enrol, list and remove relays
    #[command(subcommand)]
    Relay(RelayCommand),
    /// Look at parties
    #[command(subcommand)]
    Party(PartyCommand),
}

/// Enrol, list and remove relays.
#[derive(Debug, Subcommand)]
pub enum RelayCommand {
    /// Print a token that lets one relay enrol
    Token {
        /// How long the token can be used, such as 30m, 1h or 7d
        #[arg(long, default_value = "1h", value_parser = lifetime_s)]
        lifetime: u64,
    },
    /// List the enrolled relays: id, name, addresses
    List,
    /// Take a relay out of the pool
    Remove {
        /// The number that `relay list` shows
        id: u16,
    },
}

/// Look at parties.
#[derive(Debug, Subcommand)]
pub enum PartyCommand {
    /// List the parties: id, members, name
    List,
}

/// Seconds of `90s`, `30m`, `1h`, `7d`.
fn lifetime_s(text: &str) -> Result<u64, String> {
    let expected = || "expected a number and s, m, h or d, such as 1h".to_owned();
    let (number, unit) =
        text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(expected)?;
    let unit: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    let lifetime = number.checked_mul(unit).filter(|s| (1..=30 * 86_400).contains(s));
    lifetime.ok_or_else(|| "a token lives from 1s to 30d".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lifetimes() {
        assert_eq!(lifetime_s("90s"), Ok(90));
        assert_eq!(lifetime_s("7d"), Ok(7 * 86_400));
        for wrong in ["", "h", "1", "1x", "-1h", "0s", "31d", "99999999999999999999d", "1é"] {
            assert!(lifetime_s(wrong).is_err(), "{wrong}");
        }
    }
}
