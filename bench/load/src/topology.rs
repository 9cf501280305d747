//! The relay's network: one veth, one core for each end.
//!
//! ```text
//!   CPU 0                                   CPU 1
//!   contestant ── eth0 ───────veth──────── "relay" ── generator (test run, redirected in)
//!   UDP, IP       198.18.1.2  198.18.1.1       └─ napi/relay: sink (XDP)
//!   (softirq)     GRO on, RPS to CPU 0     routes all clients, its neighbour entry permanent
//! ```
//!
//! All that a relay's core does in a machine happens on CPU 0: from IP upward in softirqs, which RPS
//! brings there by one interrupt a bunch, then the contestant, then the send path as far as the
//! interface. The driver's part and GRO run in the generator's time on CPU 1. The sink has a thread
//! of its own that a timer wakes, as a NIC's moderated interrupt would: an inter-processor interrupt
//! for each datagram sent costs a guest a fourth of all its time.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use lanrage_lab::{Host, Lab, LinkSpec};
use rustix::thread::{CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_setaffinity};
use tempfile::TempDir;

use crate::frame::Road;
use crate::population::CLIENTS;

/// Where the contestant and its interface's receive thread run.
pub const RELAY_CPU: usize = 0;
/// Where the generator and the sink run.
pub const LOAD_CPU: usize = 1;
/// Of the contestant, in the lab's notation.
const RELAY: &str = "relay";
/// The contestant's port.
pub const PORT: u16 = 51_820;

/// Within which a contestant's port is free after its end.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// Held while a run finds out which kernel thread is its own.
const LOCK: &str = "/run/lanrage-bench.lock";

/// How often the sink looks for datagrams, and how often in vain before it waits to be told.
const SINK_PERIOD_NS: u64 = 50_000;
const SINK_DEFERRALS: u64 = 10_000;

/// A standing network. Everything in it goes when it is dropped, or its process ends.
#[derive(Debug)]
pub struct Topology {
    host: Host,
    gateway: String,
    /// Interface numbers: the gateway's is the sink's and the generator's.
    interface: u32,
    road: Road,
    sink_napi: u32,
    lab: Lab,
}

impl Topology {
    /// Builds the network; needs root, two CPUs, and `ethtool`, `chrt` and `taskset`.
    ///
    /// # Errors
    ///
    /// What the system lacks or refuses.
    pub fn new() -> anyhow::Result<Self> {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        ensure!(cpus > LOAD_CPU, "a benchmark needs 2 CPUs: this process may use {cpus}");
        let lab = Lab::new()?;
        let host = lab.host(RELAY, LinkSpec::direct())?;
        let gateway = lab.id().netns("backbone");
        let via = Ipv4Addr::from(u32::from(host.v4()) - 1);
        run(&gateway, &["ethtool", "-K", RELAY, "gro", "on"])?;
        run(host.netns(), &["ethtool", "-K", "eth0", "gro", "on"])?;
        set_device(host.netns(), "eth0", "queues/rx-0/rps_cpus", 1 << RELAY_CPU)?;
        // Thread names are the machine's: another run may make one of the same name.
        let alone = fs::File::create(LOCK).context(LOCK)?;
        alone.lock().context(LOCK)?;
        let known = napi_threads(RELAY)?;
        set_device(&gateway, RELAY, "threaded", 1)?;
        let sink_napi = new_napi_thread(RELAY, &known)?;
        drop(alone);
        set_device(&gateway, RELAY, "napi_defer_hard_irqs", SINK_DEFERRALS)?;
        set_device(&gateway, RELAY, "gro_flush_timeout", SINK_PERIOD_NS)?;
        tool(&["taskset", "-pc", &LOAD_CPU.to_string(), &sink_napi.to_string()])?;
        tool(&["chrt", "-f", "-p", "1", &sink_napi.to_string()])?;
        let to = address_of(host.netns(), "eth0")?;
        let from = address_of(&gateway, RELAY)?;
        let mac = from.map(|byte| format!("{byte:02x}")).join(":");
        // The clients are the gateway's own, for those contestants that want to talk first.
        run(&gateway, &["ip", "route", "add", "local", CLIENTS, "dev", "lo"])?;
        let neighbour = ["ip", "neighbour", "replace", &via.to_string(), "lladdr", &mac];
        run(host.netns(), &[&neighbour[..], &["nud", "permanent", "dev", "eth0"]].concat())?;
        let relay = SocketAddrV4::new(host.v4(), PORT);
        let interface = run(&gateway, &["cat", &format!("/sys/class/net/{RELAY}/ifindex")])?;
        let interface = interface.trim().parse().context("an interface's number")?;
        let road = Road { to, from, relay };
        Ok(Self { host, gateway, interface, road, sink_napi, lab })
    }

    /// The contestant's machine.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// A fresh directory that goes with the network, however the process ends.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn directory(&self) -> anyhow::Result<TempDir> {
        tempfile::tempdir_in(self.lab.dir()).context("making a directory")
    }

    /// Where frames enter.
    #[must_use]
    pub fn road(&self) -> &Road {
        &self.road
    }

    /// The gateway's interface, by number, in its network namespace.
    #[must_use]
    pub fn interface(&self) -> u32 {
        self.interface
    }

    /// The thread that the sink runs on.
    #[must_use]
    pub fn sink_napi(&self) -> u32 {
        self.sink_napi
    }

    /// Runs `f` on a fresh thread of the load's CPU, in the gateway's network namespace.
    ///
    /// # Errors
    ///
    /// The namespace is gone.
    ///
    /// # Panics
    ///
    /// If `f` does.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let path = Path::new("/run/netns").join(&self.gateway);
        let namespace = fs::File::open(&path).with_context(|| path.display().to_string())?;
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                use std::os::fd::AsFd as _;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("entering the gateway's namespace")?;
                pin(LOAD_CPU).context("pinning the load")?;
                Ok(f())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Waits until the contestant before has left the port: the kernel frees the sockets of a ring
    /// some time after its process has gone.
    ///
    /// # Errors
    ///
    /// It is still taken after 2 s, or cannot be bound at all.
    pub fn wait_for_the_port(&self) -> anyhow::Result<()> {
        let relay = self.road.relay;
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        while let Err(error) = self.host.enter(|| UdpSocket::bind(relay))? {
            if error.kind() != ErrorKind::AddrInUse || Instant::now() > deadline {
                return Err(error).with_context(|| format!("waiting for {relay} to be free"));
            }
            thread::sleep(RELEASE_TIMEOUT / 400);
        }
        Ok(())
    }

    /// A command for the contestant's machine and CPU.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.host.command("taskset");
        command.args(["-c", &RELAY_CPU.to_string(), program]);
        command
    }
}

/// Puts this thread on one CPU.
///
/// # Errors
///
/// The CPU is not this process's to use.
pub fn pin(cpu: usize) -> rustix::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
}

/// Writes an attribute of a device.
fn set_device(
    namespace: &str,
    device: &str,
    attribute: &str,
    value: impl std::fmt::Display,
) -> anyhow::Result<()> {
    let script = format!("echo {value} > /sys/class/net/{device}/{attribute}");
    run(namespace, &["sh", "-c", &script]).map(drop)
}

/// Runs a command in a network namespace.
fn run(namespace: &str, command: &[&str]) -> anyhow::Result<String> {
    tool(&[&["ip", "netns", "exec", namespace], command].concat())
}

/// Runs a command to its end; what it says is the error.
pub(crate) fn tool(command: &[&str]) -> anyhow::Result<String> {
    let shown = command.join(" ");
    let output =
        Command::new(command[0]).args(&command[1..]).stdin(Stdio::null()).output().with_context(
            || format!("{shown}: run `make setup` for the programs that are missing"),
        )?;
    if !output.status.success() {
        bail!("`{shown}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn address_of(namespace: &str, interface: &str) -> anyhow::Result<[u8; 6]> {
    let text = run(namespace, &["cat", &format!("/sys/class/net/{interface}/address")])?;
    let bytes: Vec<u8> =
        text.trim().split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.try_into().map_err(|_| anyhow::anyhow!("{interface} has the address {text:?}"))
}

/// Kernel threads named `napi/<interface>-<number>` (`napi_kthread_create`, net/core/dev.c).
fn napi_threads(interface: &str) -> anyhow::Result<Vec<u32>> {
    let prefix = format!("napi/{interface}-");
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc").context("listing /proc")? {
        let entry = entry.context("listing /proc")?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with(&prefix) {
            threads.push(id);
        }
    }
    Ok(threads)
}

fn new_napi_thread(interface: &str, known: &[u32]) -> anyhow::Result<u32> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let threads = napi_threads(interface)?;
        let new: Vec<u32> = threads.into_iter().filter(|id| !known.contains(id)).collect();
        match new.as_slice() {
            [thread] => return Ok(*thread),
            _ if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            others => bail!("{} new receive threads of {interface}: expected one", others.len()),
        }
    }
}
