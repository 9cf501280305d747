//! `lanrage-relay ctl`: the other end of the admin socket.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use lanrage_proto::SessionId;
use serde::Serialize;

mod client;
mod failure;
pub use failure::{EXIT_CODES, Failure};
mod table;

mod bans;
mod caps;
mod drain;
mod leases;
mod shards;
mod status;
mod switches;
mod upgrade;

use client::Client;

use crate::config::GsoSetting;

/// Where a relay with default settings listens.
const SOCKET: &str = "/var/lib/lanrage-relay/admin.sock";

/// How to reach which relay, and what to do there.
#[derive(Clone, Debug, Args)]
pub struct Ctl {
    /// The relay's admin socket
    #[arg(
        long,
        env = "LANRAGE_RELAY_ADMIN_SOCKET",
        value_name = "PATH",
        default_value = SOCKET,
        global = true
    )]
    socket: PathBuf,
    /// Answer in JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const UPGRADE: &str = "\
Hand over to a new process of the installed program, with the same arguments; nothing is lost.

The relay starts the file that it was started from, gives it its sockets and leases, and ends once the
new process serves. If the new one refuses, ends or hangs, the running one goes on and this says why.
SIGUSR2 does the same. --listen, --shards, --leases, --steering and --state-dir must be as
they were.

A systemd unit: Type=notify, NotifyAccess=all, ExecReload=lanrage-relay ctl upgrade, and WatchdogSec=15
or more: readiness and watchdog come from the threads that forward and bind.";

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Show the relay as a whole
    Status,
    /// List sessions with what their leases add up to
    Sessions(leases::Limit),
    /// List leases
    Leases {
        /// Those of this session alone
        #[arg(long)]
        session: Option<SessionId>,
        #[command(flatten)]
        limit: leases::Limit,
    },
    /// Show what shards do
    Shard {
        /// This one alone: a number, `control` for the thread of all but data, or `streams`
        #[arg(value_name = "SHARD")]
        number: Option<String>,
    },
    /// Stop serving a key or a session, at once and after restarts, too
    Ban {
        #[command(subcommand)]
        whom: bans::Whom,
    },
    /// Lift a ban
    Unban {
        #[command(subcommand)]
        whom: bans::Whom,
    },
    /// List bans
    Bans,
    /// Cap what a session or a member sends, in place of its ticket's rate class, until the relay ends
    Cap {
        #[command(flatten)]
        whom: caps::Whom,
        #[command(flatten)]
        caps: caps::Figures,
    },
    /// Lift a cap
    Uncap(caps::Whom),
    /// List caps
    Caps,
    /// Bind nobody any more, and tell clients to leave; they are served meanwhile
    Drain(drain::Drain),
    /// Bind again
    Undrain,
    /// Show or change what is logged, until the relay ends
    Log {
        /// As in `info,lanrage_relay=debug`
        filter: Option<String>,
    },
    /// Show or change UDP segmentation offload, until the relay ends
    Gso { mode: Option<GsoSetting> },
    /// Hand over to a new process of the installed program; nothing is lost
    #[command(long_about = UPGRADE)]
    Upgrade,
}

impl Ctl {
    /// Asks the relay, and prints what it answers.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn run(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Other(format!("cannot start: {error}")))?;
        runtime.block_on(self.ask())
    }

    async fn ask(self) -> Result<(), Failure> {
        let mut client = Client::connect(&self.socket).await?;
        let output = Output { json: self.json };
        match self.command {
            Command::Status => status::show(&mut client, output).await,
            Command::Sessions(limit) => leases::show_sessions(&mut client, output, limit).await,
            Command::Leases { session, limit } => {
                leases::show_leases(&mut client, output, session, limit).await
            }
            Command::Shard { number } => shards::show(&mut client, output, number).await,
            Command::Ban { whom } => bans::ban(&mut client, output, whom).await,
            Command::Unban { whom } => bans::unban(&mut client, output, whom).await,
            Command::Bans => bans::show(&mut client, output).await,
            Command::Cap { whom, caps } => caps::cap(&mut client, output, whom, caps).await,
            Command::Uncap(whom) => caps::uncap(&mut client, output, whom).await,
            Command::Caps => caps::show(&mut client, output).await,
            Command::Drain(how) => drain::drain(&mut client, output, how).await,
            Command::Undrain => drain::undrain(&mut client, output).await,
            Command::Log { filter } => switches::log(&mut client, output, filter).await,
            Command::Gso { mode } => switches::gso(&mut client, output, mode).await,
            Command::Upgrade => upgrade::upgrade(&mut client, output).await,
        }
    }
}

/// How answers are printed.
#[derive(Clone, Copy, Debug)]
struct Output {
    json: bool,
}

impl Output {
    /// Prints the answer, as JSON or as `text` says it.
    fn print<T: Serialize>(
        self,
        answer: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let mut lines = match self.json {
            true => serde_json::to_string(answer).map_err(|e| Failure::Other(e.to_string()))?,
            false => text(answer),
        };
        if !lines.ends_with('\n') {
            lines.push('\n');
        }
        write(&lines)
    }

    /// Prints rows, each one a line of JSON, or as `text` says them.
    fn print_rows<T: Serialize>(
        self,
        rows: &[T],
        text: impl FnOnce(&[T]) -> String,
    ) -> Result<(), Failure> {
        match self.json {
            true => rows.iter().try_for_each(|row| self.print(row, |_| String::new())),
            false => write(&text(rows)),
        }
    }
}

fn write(lines: &str) -> Result<(), Failure> {
    match io::stdout().write_all(lines.as_bytes()) {
        // As with `| head`: the reader has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Other(format!("writing to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
