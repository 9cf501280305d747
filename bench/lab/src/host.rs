//! A machine of the lab.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::Command,
    sync::Arc,
};

use crate::{Capture, Error, Link, Process, netns::Netns};

/// A namespace with the interface `eth0`, a default route and `lo` up. Clones name the same host.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) name: String,
    pub(crate) netns: Netns,
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
    pub(crate) link: Link,
    pub(crate) dir: Arc<Path>,
}

impl Host {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name `ip netns` knows the host by.
    pub fn netns(&self) -> &str {
        self.netns.name()
    }

    /// The address of `eth0`: public on the backbone, private behind a NAT. Of a NAT's gateway it
    /// is the first public address; see [`crate::Nat::public_v4`].
    ///
    /// # Panics
    ///
    /// On a host that was asked to have IPv6 alone.
    pub fn v4(&self) -> Ipv4Addr {
        self.v4.expect("the host was to have IPv4")
    }

    /// `None` behind a gateway without IPv6, and on links with an MTU below 1,280.
    pub fn v6(&self) -> Option<Ipv6Addr> {
        self.v6
    }

    /// What `eth0` has: the IPv4 address first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::from).into_iter().chain(self.v6.map(IpAddr::from))
    }

    /// The link between the host and its network.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Runs `f` on a fresh thread inside the host; sockets it opens stay in the host. Names are
    /// those of the machine, not of the lab.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the namespace cannot be entered, as after the lab is gone.
    ///
    /// # Panics
    ///
    /// If `f` does.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
        self.netns.enter(f)
    }

    /// A command that runs in the host, with the caller's standard streams.
    pub fn command(&self, program: &str) -> Command {
        self.netns.command(program)
    }

    /// Starts a command of [`Host::command`] in a process group of its own, with its output in
    /// `<lab dir>/<host>-<log>.log`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the log cannot be made or the command not started.
    pub fn spawn(&self, log: &str, command: Command) -> Result<Process, Error> {
        let log = self.dir.join(format!("{}-{log}.log", self.name));
        Process::spawn(command, log)
    }

    /// Records what passes `eth0` in `<lab dir>/<host>-<name>.pcap`, from before this returns.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTool`] without tcpdump; [`Error::Timeout`] if it does not start.
    pub fn capture(&self, name: &str) -> Result<Capture, Error> {
        Capture::start(self, name)
    }
}
