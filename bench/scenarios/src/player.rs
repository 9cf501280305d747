use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lanrage_lab::{Host, Process};
use rustix::process::Signal;
use serde_json::Value;

use crate::binaries::program;
use crate::eventually;

const START_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// The default of ping(8).
const PING_PAYLOAD_LEN: usize = 56;

/// Exit codes of `lanrage`, as `lanrage --help` documents them.
pub mod exit {
    /// Wrong usage.
    pub const USAGE: i32 = 2;
    /// No daemon.
    pub const NO_DAEMON: i32 = 3;
    /// No right to make the NIC.
    pub const RIGHTS: i32 = 4;
    /// The invite is refused.
    pub const INVITE: i32 = 5;
    /// Control cannot be reached, or is another one.
    pub const CONTROL: i32 = 6;
    /// The party's network overlaps a local route.
    pub const OVERLAP: i32 = 7;
    /// The state directory.
    pub const STATE: i32 = 8;
    /// Full, not found, forbidden, conflict.
    pub const REFUSED: i32 = 9;
}

/// What a command said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Answer {
    /// Checks that the command failed with `code` and said `text`.
    ///
    /// # Panics
    /// It did not.
    #[track_caller]
    pub fn expect_failure(&self, code: i32, text: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(text), "not {text:?}: {self:?}");
    }
}

/// A client on a host of its own.
#[derive(Debug)]
pub struct Player {
    host: Host,
    dir: PathBuf,
    wrapper: Vec<String>,
    daemon: Option<Process>,
    starts: usize,
    address: Option<Ipv4Addr>,
    member_name: String,
}

impl Player {
    /// Starts a daemon that is in no party.
    ///
    /// # Errors
    /// The program is not built or does not start; its log says why.
    pub fn start(host: Host, dir: &Path) -> anyhow::Result<Self> {
        let dir = dir.join(host.name());
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let member_name = host.name().to_owned();
        let mut player = Self {
            host,
            dir,
            wrapper: Vec::new(),
            daemon: None,
            starts: 0,
            address: None,
            member_name,
        };
        player.start_daemon()?;
        Ok(player)
    }

    /// The host's name.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// The host the client runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The daemon's process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn daemon(&self) -> &Process {
        self.daemon.as_ref().expect("the daemon runs")
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// The daemon's state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The virtual NIC's name.
    pub fn nic(&self) -> &'static str {
        "lanrage0"
    }

    /// The name in the party.
    pub fn member_name(&self) -> &str {
        &self.member_name
    }

    /// The virtual address.
    ///
    /// # Panics
    /// Before the player has entered a party.
    pub fn address(&self) -> Ipv4Addr {
        self.address.expect("the player has entered a party")
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// It does not answer within ten seconds.
    pub fn start_daemon(&mut self) -> anyhow::Result<()> {
        self.launch_daemon()?;
        eventually("the daemon to answer", START_PATIENCE, || {
            let answer = self.run(&["status", "--json"])?;
            ensure!(answer.code == 0, "{}", answer.stderr);
            Ok(Some(()))
        })
    }

    /// Starts the daemon without waiting.
    ///
    /// # Errors
    /// The program is not built.
    pub fn launch_daemon(&mut self) -> anyhow::Result<()> {
        self.starts += 1;
        let mut command = self.daemon_command()?;
        command.env("LANRAGE_LOG", "info");
        let log = format!("daemon-{}", self.starts);
        self.daemon = Some(self.host.spawn(&log, command)?);
        Ok(())
    }

    /// From the next start on, daemon and command line run as arguments of `wrapper`, as in
    /// `setpriv …`.
    pub fn run_under(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
    }

    /// What starts the daemon, for a scenario that wants to change it.
    ///
    /// # Errors
    /// The program is not built.
    pub fn daemon_command(&self) -> anyhow::Result<Command> {
        let mut command = program(&self.host, &self.wrapper, "lanrage")?;
        command
            .arg("daemon")
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--socket")
            .arg(self.socket());
        Ok(command)
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// The daemon does not end.
    pub fn stop_daemon(&mut self) -> anyhow::Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal(Signal::TERM)?;
            daemon.wait(STOP_PATIENCE)?;
        }
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn kill_daemon(&mut self) -> anyhow::Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill()?;
        }
        Ok(())
    }

    /// Becomes a device that nobody knows.
    ///
    /// # Errors
    /// The daemon does not end or start.
    pub fn forget_everything(&mut self) -> anyhow::Result<()> {
        self.stop_daemon()?;
        fs::remove_dir_all(self.state_dir()).context("remove the state directory")?;
        self.address = None;
        self.start_daemon()
    }

    /// Runs a `lanrage` command against this daemon.
    ///
    /// # Errors
    /// The program is not built.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Answer> {
        let mut command = program(&self.host, &self.wrapper, "lanrage")?;
        let output: Output = command
            .env("LANRAGE_SOCKET", self.socket())
            .args(arguments)
            .output()
            .with_context(|| format!("run lanrage {arguments:?}"))?;
        Ok(Answer {
            code: output.status.code().context("lanrage was killed")?,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command that succeeds and gives its JSON.
    fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let arguments = [arguments, &["--json"]].concat();
        let answer = self.run(&arguments)?;
        if answer.code != 0 {
            bail!("lanrage {arguments:?}: exit code {}: {}", answer.code, answer.stderr.trim());
        }
        serde_json::from_str(&answer.stdout)
            .with_context(|| format!("lanrage {arguments:?} printed {:?}", answer.stdout))
    }

    /// Makes a party.
    ///
    /// # Errors
    /// The client or control refuses.
    pub fn create_party(&mut self, name: &str, server: &str) -> anyhow::Result<()> {
        let own = self.member_name.clone();
        let entered = self.json(&["party", "create", name, "--server", server, "--name", &own])?;
        self.entered(&entered)
    }

    /// Joins a party.
    ///
    /// # Errors
    /// The client or control refuses.
    pub fn join(&mut self, invite: &str) -> anyhow::Result<()> {
        let own = self.member_name.clone();
        let entered = self.json(&["party", "join", invite, "--name", &own])?;
        self.entered(&entered)
    }

    /// Tries to join a party.
    ///
    /// # Errors
    /// The program is not built.
    pub fn try_join(&self, invite: &str) -> anyhow::Result<Answer> {
        self.run(&["party", "join", invite, "--name", &self.member_name])
    }

    fn entered(&mut self, entered: &Value) -> anyhow::Result<()> {
        let address = entered["party"]["ipv4"].as_str().context("no address")?;
        self.address = Some(address.parse().context("read the address")?);
        Ok(())
    }

    /// An invite for `uses` devices.
    ///
    /// # Errors
    /// The client or control refuses.
    pub fn invite(&self, uses: u16) -> anyhow::Result<String> {
        let reply = self.json(&["party", "invite", "--uses", &uses.to_string()])?;
        Ok(reply["invite"].as_str().context("no invite")?.to_owned())
    }

    /// Kicks a member by name.
    ///
    /// # Errors
    /// The client or control refuses.
    pub fn kick(&self, member: &str) -> anyhow::Result<()> {
        let answer = self.run(&["party", "kick", member])?;
        ensure!(answer.code == 0, "kick: {}", answer.stderr);
        Ok(())
    }

    /// The active party's part of `lanrage status --json`.
    ///
    /// # Errors
    /// The daemon does not answer, or no party is active.
    pub fn status(&self) -> anyhow::Result<Value> {
        let mut status = self.json(&["status"])?;
        let party = status["party"].take();
        ensure!(!party.is_null(), "no party is active: {status}");
        Ok(party)
    }

    /// The name of the relay that packets to the first other member go by.
    ///
    /// # Errors
    /// There is no such path.
    pub fn relay_in_use(&self) -> anyhow::Result<String> {
        let path = self.path_in_use()?;
        Ok(path["name"].as_str().context("no path")?.to_owned())
    }

    /// The relay that delivers its packets to the first connected member, when it is another one.
    ///
    /// # Errors
    /// Nobody is connected, or the daemon does not answer.
    pub fn egress_in_use(&self) -> anyhow::Result<Option<String>> {
        Ok(self.path_in_use()?["egress"]["name"].as_str().map(str::to_owned))
    }

    fn path_in_use(&self) -> anyhow::Result<Value> {
        let mut status = self.status()?;
        let members = status["members"].as_array_mut().context("no members")?;
        let connected = members.iter_mut().find(|member| member["connection"] == "connected");
        Ok(connected.context("nobody is connected")?["paths"][0].take())
    }

    /// Whether self-addressed frames come back from a relay.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn has_lease_at(&self, relay: &str) -> anyhow::Result<bool> {
        let status = self.status()?;
        let relays = status["relays"].as_array().context("no relays")?;
        Ok(relays.iter().any(|entry| entry["name"] == relay && entry["state"] == "alive"))
    }

    /// Waits until the daemon follows control.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait_for_control(&self, patience: Duration) -> anyhow::Result<()> {
        eventually("a stream from control", patience, || {
            Ok((self.status()?["control"]["connected"] == true).then_some(()))
        })
    }

    /// What the client has dropped for a reason.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn dropped(&self, reason: &str) -> anyhow::Result<u64> {
        let status = self.status()?;
        let drops = status["drops"].as_array().context("no drops")?;
        let count = drops.iter().find(|drop| drop[0] == reason).map(|drop| &drop[1]);
        Ok(count.and_then(Value::as_u64).unwrap_or(0))
    }

    /// Bytes of IP packets from all members together.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn bytes_received(&self) -> anyhow::Result<u64> {
        let status = self.status()?;
        let members = status["members"].as_array().context("no members")?;
        Ok(members.iter().filter_map(|member| member["bytes_received"].as_u64()).sum())
    }

    /// The address of a relay that this client's datagrams go to, once it holds a lease there.
    ///
    /// # Errors
    /// The daemon does not answer, or holds no lease there.
    pub fn relay_address(&self, relay: &str) -> anyhow::Result<SocketAddr> {
        let status = self.status()?;
        let relays = status["relays"].as_array().context("no relays")?;
        let entry = relays.iter().find(|entry| entry["name"] == relay);
        let address = entry.and_then(|entry| entry["address"].as_str());
        address.with_context(|| format!("no lease at {relay}"))?.parse().context("read an address")
    }

    /// Pings an address through the virtual NIC until the first answer.
    ///
    /// # Errors
    /// None comes in time.
    pub fn ping(&self, to: Ipv4Addr, patience: Duration) -> anyhow::Result<()> {
        self.ping_with(to, PING_PAYLOAD_LEN, patience)
    }

    /// [`Player::ping`] with so many bytes of payload.
    ///
    /// # Errors
    /// None comes in time.
    pub fn ping_with(
        &self,
        to: Ipv4Addr,
        payload_len: usize,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let deadline = patience.as_secs().max(1).to_string();
        let output = self
            .host
            .command("ping")
            .args(["-n", "-q", "-i", "0.05", "-c", "1", "-w", &deadline])
            .args(["-s", &payload_len.to_string(), &to.to_string()])
            .output()
            .context("run ping")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{} cannot ping {to}: {}", self.name(), text.trim());
        Ok(())
    }
}
