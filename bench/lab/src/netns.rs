//! One network namespace, and the commands that run in it.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::{fd::AsFd, unix::fs::symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Error;

/// Where `ip netns` keeps its namespaces (ip-netns(8)).
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// What `ip netns exec` binds over the files of /etc (ip-netns(8)).
const NETNS_ETC_DIR: &str = "/etc/netns";

/// What a namespace does with packets that are not for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Host,
    Router,
}

/// A namespace that exists under `/run/netns`; the guardian deletes it.
#[derive(Debug, Clone)]
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    pub(crate) fn create(name: String, role: Role) -> Result<Self, Error> {
        run(Command::new("ip").args(["netns", "add", &name]), "")?;
        let netns = Self { name };
        netns.enter(|| set_sysctls(role))??;
        Ok(netns)
    }

    /// Gives the commands that run here an /etc/hosts of their own.
    pub(crate) fn make_hosts_file(&self) -> Result<(), Error> {
        self.make_etc_dir()?;
        let hosts = self.hosts_file();
        fs::write(&hosts, "127.0.0.1 localhost\n::1 localhost\n")
            .map_err(Error::io(format!("write {}", hosts.display())))
    }

    /// One write, so that several threads may add lines.
    pub(crate) fn add_to_hosts_file(&self, lines: &str) -> Result<(), Error> {
        let hosts = self.hosts_file();
        let open = OpenOptions::new().append(true).open(&hosts);
        open.and_then(|mut file| file.write_all(lines.as_bytes()))
            .map_err(Error::io(format!("write {}", hosts.display())))
    }

    /// Gives the commands that run here the /etc/hosts of `other`.
    pub(crate) fn share_hosts_file(&self, other: &Self) -> Result<(), Error> {
        self.make_etc_dir()?;
        let hosts = self.hosts_file();
        symlink(other.hosts_file(), &hosts)
            .map_err(Error::io(format!("make the link {}", hosts.display())))
    }

    fn make_etc_dir(&self) -> Result<(), Error> {
        let dir = Path::new(NETNS_ETC_DIR).join(&self.name);
        fs::create_dir_all(&dir).map_err(Error::io(format!("create {}", dir.display())))
    }

    fn hosts_file(&self) -> PathBuf {
        Path::new(NETNS_ETC_DIR).join(&self.name).join("hosts")
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `f` on a fresh thread inside the namespace; sockets it opens stay there.
    pub(crate) fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let path = Path::new(NETNS_DIR).join(&self.name);
        let file = File::open(&path).map_err(Error::io(format!("open {}", path.display())))?;
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(Error::io(format!("enter namespace {}", self.name)))?;
                Ok(f())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs lines of `ip` commands in one process.
    pub(crate) fn ip(&self, lines: &str) -> Result<(), Error> {
        run(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), lines)
    }

    /// Applies one nftables script, atomically.
    pub(crate) fn nft(&self, script: &str) -> Result<(), Error> {
        run(self.command("nft").args(["-f", "-"]), script)
    }
}

/// Runs a command to its end with `input` on its standard input.
pub(crate) fn run(command: &mut Command, input: &str) -> Result<(), Error> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io(format!("start {shown}")))?;
    let mut stdin = child.stdin.take().expect("standard input is piped");
    // A command that fails early closes its end; its own error says why.
    let _closed_early = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(Error::io(format!("wait for {shown}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: format!("{shown} <<< {input:?}"),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// `/proc/sys/net` shows the namespace of the thread that opens it (`net_ctl_set` in
/// net/sysctl_net.c), so this runs inside [`Netns::enter`].
fn set_sysctls(role: Role) -> Result<(), Error> {
    const EVERYWHERE: &[(&str, &str)] = &[
        // The lab's paths are asymmetric on purpose.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        // Without duplicate address detection an IPv6 address works at once.
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/dad_transmits", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        // A bridge is a switch: its frames do not pass the IP firewall.
        ("bridge/bridge-nf-call-iptables", "0"),
        ("bridge/bridge-nf-call-ip6tables", "0"),
        ("bridge/bridge-nf-call-arptables", "0"),
    ];
    const ROUTER: &[(&str, &str)] = &[
        ("ipv4/conf/all/forwarding", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
    ];
    let routing = match role {
        Role::Host => &[],
        Role::Router => ROUTER,
    };
    for (key, value) in EVERYWHERE.iter().chain(routing) {
        let path = Path::new("/proc/sys/net").join(key);
        // A kernel without IPv6 or bridge netfilter has no such key, and needs none.
        if path.exists() {
            write_sysctl(&path, value)?;
        }
    }
    Ok(())
}

pub(crate) fn write_sysctl(path: &Path, value: &str) -> Result<(), Error> {
    fs::write(path, value).map_err(Error::io(format!("write {value} to {}", path.display())))
}
