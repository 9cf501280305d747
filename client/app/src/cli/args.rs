use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::failure::EXIT_CODES;
use crate::{local, nic};

/// Puts this machine on a party's virtual LAN.
#[derive(Clone, Debug, Parser)]
#[command(version, after_help = exit_codes(), max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to reach the daemon, and how to show its answers.
#[derive(Clone, Debug, clap::Args)]
pub struct LocalArgs {
    /// The daemon's socket.
    #[arg(long, env = "LANRAGE_SOCKET", value_name = "PATH", default_value = local::DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What a daemon is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct DaemonArgs {
    /// Keys, memberships and what control last said [default: /var/lib/lanrage].
    #[arg(long, env = "LANRAGE_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The name of the virtual network interface [default: lanrage0].
    #[arg(long, env = "LANRAGE_NIC", value_name = "NAME")]
    pub nic: Option<String>,
    /// TCP address of /metrics, /healthz and /readyz; off by default.
    #[arg(long, env = "LANRAGE_METRICS", value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// What is logged, as in `info,lanrage=debug` [default: info].
    #[arg(long, env = "LANRAGE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

impl DaemonArgs {
    /// The state directory, with its default.
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| DEFAULT_STATE_DIR.into())
    }

    /// The NIC's name, with its default.
    pub fn nic(&self) -> &str {
        self.nic.as_deref().unwrap_or(nic::DEFAULT_NAME)
    }
}

const DEFAULT_STATE_DIR: &str = "/var/lib/lanrage";

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground; what a service manager starts.
    Daemon {
        #[command(flatten)]
        daemon: DaemonArgs,
        /// Where to listen for the command line.
        #[arg(long, env = "LANRAGE_SOCKET", value_name = "PATH", default_value = local::DEFAULT_SOCKET)]
        socket: PathBuf,
    },
    /// Start a daemon in the background if none runs, and bring the active party's LAN up.
    ///
    /// What the daemon says goes to daemon.log in the state directory.
    Up {
        #[command(flatten)]
        daemon: DaemonArgs,
        #[command(flatten)]
        local: LocalArgs,
    },
    /// Take the LAN down and end the daemon; memberships stay, in the state directory.
    Down {
        #[command(flatten)]
        local: LocalArgs,
    },
    /// Make, join, leave and look after parties.
    #[command(subcommand)]
    Party(PartyCommand),
    /// Show the party that is up: relays, members, how packets reach them.
    Status {
        /// Go on, once a second, until interrupted.
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        local: LocalArgs,
    },
    /// Send echoes to a member through the tunnel; shows round trip and path.
    Ping {
        /// Name, number or address.
        member: String,
        /// How many.
        #[arg(short = 'c', long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
        #[command(flatten)]
        local: LocalArgs,
    },
}

/// The commands about parties.
#[derive(Clone, Debug, Subcommand)]
pub enum PartyCommand {
    /// Make a party and print a first invite.
    Create {
        /// The party's name: 1 to 32 of a-z, 0-9 and inner hyphens.
        name: String,
        /// The server's address, as `lanrage-control address` prints it.
        #[arg(long, env = "LANRAGE_SERVER", value_name = "lanrage-server://…")]
        server: String,
        /// Your name in the party; this machine's by default.
        #[arg(long = "name", value_name = "NAME")]
        member_name: Option<String>,
        /// The party's network, a /24 of 10.66.0.0/16; one that is free here by default.
        #[arg(long, value_name = "10.66.X.0")]
        subnet: Option<Ipv4Addr>,
        #[command(flatten)]
        local: LocalArgs,
    },
    /// Join a party by an invite.
    Join {
        /// The invite, or - to read it from standard input, which keeps it from other users' eyes.
        #[arg(value_name = "lanrage://…|-")]
        invite: String,
        /// Your name in the party; this machine's by default.
        #[arg(long = "name", value_name = "NAME")]
        member_name: Option<String>,
        #[command(flatten)]
        local: LocalArgs,
    },
    /// Leave a party for good. The owner's place goes to another member.
    Leave {
        /// Name or id; the active party by default.
        party: Option<String>,
        /// Only forget it on this machine, without telling the server: for one that is gone.
        #[arg(long)]
        forget: bool,
        #[command(flatten)]
        local: LocalArgs,
    },
    /// Bring another party up in the active one's place.
    Switch {
        /// Name or id.
        party: String,
        #[command(flatten)]
        local: LocalArgs,
    },
    /// List your parties.
    List {
        #[command(flatten)]
        local: LocalArgs,
    },
    /// List the members of the active party.
    Members {
        #[command(flatten)]
        local: LocalArgs,
    },
    /// Print a new invite to the active party.
    Invite {
        /// How long it holds, such as 30m, 24h or 7d; at most 30d.
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
        expires: Duration,
        /// How many devices may join by it.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=250))]
        uses: u16,
        #[command(flatten)]
        local: LocalArgs,
    },
    /// Put a member out, and change the party's secret.
    Kick {
        /// Name, number or address.
        member: String,
        #[command(flatten)]
        local: LocalArgs,
    },
    /// Let a member invite and kick.
    Promote {
        /// Name, number or address.
        member: String,
        /// Take the right back.
        #[arg(long)]
        demote: bool,
        #[command(flatten)]
        local: LocalArgs,
    },
}

fn exit_codes() -> String {
    let lines = EXIT_CODES.iter().map(|(code, meaning)| format!("\n  {code}  {meaning}"));
    format!("Exit codes:{}", lines.collect::<String>())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 24 * 3600)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*seconds).map(Duration::from_secs)
    });
    parsed
        .filter(|time| (Duration::from_secs(1)..=LONGEST).contains(time))
        .ok_or_else(|| "use a number and s, m, h or d, from 1s to 30d".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn definition_is_consistent_and_help_has_every_exit_code() {
        Args::command().debug_assert();
        let help = Args::command().render_help().to_string();
        for (code, meaning) in EXIT_CODES {
            assert!(help.contains(&format!("{code}  {meaning}")), "{help}");
        }
    }

    #[test]
    fn durations_have_units_and_bounds() {
        for (text, seconds) in [("1s", 1), ("30m", 1800), ("24h", 86_400), ("30d", 2_592_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in ["", "h", "24", "0s", "31d", "-1h", "1w", "99999999999999999999d", "1.5h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bounds_of_numbers_are_usage_errors() {
        for bad in [
            &["lanrage", "party", "invite", "--uses", "0"][..],
            &["lanrage", "party", "invite", "--uses", "251"],
            &["lanrage", "ping", "anna", "-c", "0"],
            &["lanrage", "party", "create", "lan"],
            &["lanrage", "nonsense"],
        ] {
            let error = Args::try_parse_from(bad).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad:?}");
        }
    }
}
