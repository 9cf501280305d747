use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::Options;
use crate::failure::EXIT_CODES;

/// The LANrage control service: parties, invites, tickets, and the pool of relays.
#[derive(Debug, Parser)]
#[command(name = "lanrage-control", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// State directory [default: /var/lib/lanrage-control]
    #[arg(
        long,
        global = true,
        visible_alias = "state-dir",
        env = "LANRAGE_CONTROL_DIR",
        value_name = "DIR"
    )]
    pub dir: Option<PathBuf>,
    /// Configuration file in TOML [default: control.toml in the state directory, if there]
    #[arg(long, global = true, env = "LANRAGE_CONTROL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the state directory, keep the settings given in its control.toml, and say what to do
    /// next
    Init(Options),
    /// Serve until SIGTERM or SIGINT; makes the state directory when it is not there
    Run(Options),
    /// Print the address that users give to `lanrage party create --server`
    Address {
        /// Where clients reach this service: HOST or HOST:PORT
        #[arg(long, env = "LANRAGE_CONTROL_PUBLIC", value_name = "HOST:PORT")]
        public: Option<String>,
    },
    /// Enrol, list and remove relays
    #[command(subcommand)]
    Relay(RelayCommand),
    /// Look at parties
    #[command(subcommand)]
    Party(PartyCommand),
}

impl Cli {
    /// The process's command line; one that is wrong ends the process with code 2.
    pub fn of_process() -> Self {
        let line: Vec<_> = std::env::args_os().collect();
        Self::try_parse_from(&line).unwrap_or_else(|error| {
            name_variable(error, &line, |name| std::env::var_os(name).is_some()).exit()
        })
    }
}

/// clap names the flag even where the value came from its environment variable: says so.
fn name_variable(
    mut error: clap::Error,
    line: &[OsString],
    is_set: impl Fn(&str) -> bool,
) -> clap::Error {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let flag = flag.split(' ').next().unwrap_or_default().to_owned();
    let on_line = line.iter().any(|word| word.to_string_lossy().starts_with(&flag));
    let command = Cli::command();
    let arguments = command
        .get_arguments()
        .chain(command.get_subcommands().flat_map(clap::Command::get_arguments));
    let variable = arguments
        .filter(|argument| argument.get_long().is_some_and(|long| flag == format!("--{long}")))
        .find_map(|argument| argument.get_env()?.to_str());
    if let Some(variable) = variable.filter(|variable| !on_line && is_set(variable)) {
        let tip = format!("the value is that of the environment variable {variable}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
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
    /// List the enrolled relays: whether they are connected, and when each was last seen
    List {
        /// Print JSON; times in seconds since 1970
        #[arg(long)]
        json: bool,
    },
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
