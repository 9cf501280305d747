//! `lanrage-relay ctl`: the other end of the admin socket.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

mod client;
mod failure;
pub use failure::{EXIT_CODES, Failure};
mod table;

mod status;
mod upgrade;

use client::Client;

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
SIGUSR2 does the same. --listen, --shards, --leases and --state-dir must be as they were.

A systemd unit: Type=notify, NotifyAccess=all, ExecReload=lanrage-relay ctl upgrade, and WatchdogSec=
as you like: readiness and watchdog come from the threads that forward and bind.";

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Show the relay as a whole
    Status,
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
        if !lines.is_empty() && !lines.ends_with('\n') {
            lines.push('\n');
        }
        match io::stdout().write_all(lines.as_bytes()) {
            // As with `| head`: the reader has seen enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::Other(format!("writing to standard output: {error}")))
            }
            _ => Ok(()),
        }
    }
}
