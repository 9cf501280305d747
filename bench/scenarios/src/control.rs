use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use lanrage_lab::{Host, Process};
use rustix::process::Signal;

use crate::binaries::program;
use crate::eventually;

const PORT: u16 = 8443;
const START_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The control service on a host of its own.
#[derive(Debug)]
pub struct Control {
    host: Host,
    dir: PathBuf,
    ticket_lifetime: Duration,
    server: String,
    process: Option<Process>,
    starts: usize,
}

impl Control {
    /// Makes the state directory and starts the service.
    ///
    /// # Errors
    /// The program is not built or does not start; its log says why.
    pub fn start(host: Host, dir: &Path, ticket_lifetime: Duration) -> anyhow::Result<Self> {
        let mut control = Self {
            dir: dir.join("control"),
            ticket_lifetime,
            server: String::new(),
            process: None,
            starts: 0,
            host,
        };
        control.run(&["init"], &[])?;
        control.server = control.run(&["address"], &[])?.trim().to_owned();
        control.restart()?;
        Ok(control)
    }

    /// Where the service listens, and at the same port of its IPv6 address.
    pub fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.host.v4(), PORT)
    }

    /// Where clients reach it: its name, which has addresses of both families.
    pub fn public(&self) -> String {
        format!("{}:{PORT}", self.host.name())
    }

    /// What `party create --server` takes.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The host the service runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The service's state directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A one-time token for a new relay.
    ///
    /// # Errors
    /// The program refuses.
    pub fn relay_token(&self) -> anyhow::Result<String> {
        Ok(self.run(&["relay", "token"], &[])?.trim().to_owned())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// The process does not end.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM)?;
            process.wait(STOP_PATIENCE)?;
        }
        Ok(())
    }

    /// The running service.
    ///
    /// # Panics
    /// After [`Control::kill`] or [`Control::stop`].
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("control runs")
    }

    /// Loses the state directory and begins anew at the same address, with another root key.
    ///
    /// # Errors
    /// It does not answer within ten seconds.
    pub fn begin_anew(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        std::fs::remove_dir_all(&self.dir).context("remove control's state directory")?;
        self.run(&["init"], &[])?;
        self.server = self.run(&["address"], &[])?.trim().to_owned();
        self.restart()
    }

    /// What starts the service, for a scenario that wants to change it.
    ///
    /// # Errors
    /// The program is not built.
    pub fn run_command(&self) -> anyhow::Result<Command> {
        let mut command = self.command()?;
        command
            .arg("run")
            .arg("--dir")
            .arg(&self.dir)
            .args(["--ticket-lifetime-s", &self.ticket_lifetime.as_secs().to_string()]);
        Ok(command)
    }

    /// Starts the service, killing the one that runs.
    ///
    /// # Errors
    /// It does not answer within ten seconds.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        self.starts += 1;
        let command = self.run_command()?;
        let log = format!("control-{}", self.starts);
        self.process = Some(self.host.spawn(&log, command)?);
        let address = self.address();
        eventually("control to listen", START_PATIENCE, || {
            let connected = self.host.enter(|| std::net::TcpStream::connect(address))?;
            Ok(connected.ok())
        })?;
        Ok(())
    }

    fn command(&self) -> anyhow::Result<Command> {
        let mut command = program(&self.host, &[], "lanrage-control")?;
        command
            .env("LANRAGE_CONTROL_LISTEN", format!("0.0.0.0:{PORT},[::]:{PORT}"))
            .env("LANRAGE_CONTROL_PUBLIC", self.public());
        Ok(command)
    }

    /// Runs a subcommand to its end and gives what it prints.
    fn run(&self, subcommand: &[&str], rest: &[&str]) -> anyhow::Result<String> {
        let output = self
            .command()?
            .args(subcommand)
            .arg("--dir")
            .arg(&self.dir)
            .args(rest)
            .output()
            .with_context(|| format!("run lanrage-control {subcommand:?}"))?;
        ensure!(
            output.status.success(),
            "lanrage-control {subcommand:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
