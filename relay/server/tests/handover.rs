//! Upgrades of the real program under traffic, and a relay that begins with leases it was given.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "what a failed relay logged is shown")]

mod common;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::traffic::{Flow, churn, one, skew};
use common::vitals::is_soak;
use common::{Client, RELAY, Relay, eventually, free_port, prepare, prepare_all};
use lanrage_proto::frame::bind::{Lease, Refusal};
use lanrage_proto::frame::control::Message;
use lanrage_proto::frame::data::Sent;
use lanrage_proto::ids::{Destination, Generation, Member, RateClass, RelayId, SessionId};
use lanrage_relay::Settings;
use lanrage_relay::config::SteeringSetting;
use lanrage_relay::handover::{self, Estate, GiveError, Idle, Memory};
use lanrage_relay::state::StateDir;
use lanrage_relay::steering::Steered;
use lanrage_relay_core::{Binder, Classes, GivenLease, KeyPrefix, Now};
use lanrage_relay_table::{Capacity, LocalId};

const LEASES: u32 = 1024;

/// The program in a file of its own, so that another can be installed in its place.
struct Installed {
    dir: tempfile::TempDir,
    udp: SocketAddr,
    metrics: SocketAddr,
    child: Option<Child>,
}

impl Installed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(&dir.path().join("state"));
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (udp, metrics) = (address(free_port()), address(free_port()));
        let installed = Self { dir, udp, metrics, child: None };
        installed.install(Path::new(env!("CARGO_BIN_EXE_lanrage-relay")));
        installed
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("lanrage-relay")
    }

    /// As a package manager does: a new file under the old name.
    fn install(&self, program: &Path) {
        let temporary = self.dir.path().join("new");
        std::fs::copy(program, &temporary).unwrap();
        std::fs::set_permissions(&temporary, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(&temporary, self.program()).unwrap();
    }

    fn install_script(&self, script: &str) {
        let file = self.dir.path().join("script");
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        self.install(&file);
    }

    fn configure(&self, backend: &str, leases: u32) {
        let settings = format!(
            "state_dir = {:?}\nlisten = [\"{}\", \"[::1]:{}\"]\nadvertise = []\nshards = 2\n\
             leases = {leases}\nmetrics_listen = \"{}\"\nbackend = \"{backend}\"\n\
             admin_socket = {:?}\n",
            self.dir.path().join("state"),
            self.udp,
            self.udp.port(),
            self.metrics,
            self.dir.path().join("admin.sock"),
        );
        std::fs::write(self.dir.path().join("relay.toml"), settings).unwrap();
    }

    fn run(&self) -> Command {
        let mut command = Command::new(self.program());
        command.args(["run", "--config"]).arg(self.dir.path().join("relay.toml"));
        command.stdout(Stdio::null()).stderr(Stdio::from(self.log()));
        command
    }

    fn log(&self) -> std::fs::File {
        let log = self.dir.path().join("log");
        std::fs::File::options().create(true).append(true).open(log).unwrap()
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn start(&mut self) {
        self.child = Some(self.run().spawn().unwrap());
        self.until_ready();
    }

    fn until_ready(&self) {
        let is_ready = || self.scrape().is_some_and(|page| page["lanrage_relay_ready"] == 1.0);
        eventually("the relay to be ready", is_ready);
    }

    fn upgrade(&self) -> Result<String, String> {
        self.ctl(&["upgrade", "--json"])
    }

    /// By the command line, from the program as it was built.
    fn ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let done = Command::new(env!("CARGO_BIN_EXE_lanrage-relay"))
            .arg("ctl")
            .args(arguments)
            .env("LANRAGE_RELAY_ADMIN_SOCKET", self.dir.path().join("admin.sock"))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if done.status.success() { Ok(text(done.stdout)) } else { Err(text(done.stderr)) }
    }

    fn scrape(&self) -> Option<BTreeMap<String, f64>> {
        let mut stream = TcpStream::connect(self.metrics).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let page: BTreeMap<_, _> = samples.filter_map(sample).collect();
        page.contains_key("lanrage_relay_ready").then_some(page)
    }

    fn metric(&self, name: &str) -> f64 {
        self.scrape().unwrap()[name]
    }

    /// The process that serves now.
    fn pid(&self) -> i32 {
        self.owner().expect("the lock names the relay")
    }

    fn owner(&self) -> Option<i32> {
        let lock = std::fs::read_to_string(self.dir.path().join("state/lock")).ok()?;
        lock.trim().parse().ok().filter(|pid| *pid != std::process::id() as i32)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{}", self.logged());
        }
        if let Some(mut child) = self.child.take() {
            // It is reaped below, or has handed over and is another's child.
            if let Some(pid) = self.owner().and_then(rustix::process::Pid::from_raw) {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// No counter falls, whoever serves.
fn assert_counts_go_on(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) {
    for (name, value) in before {
        if name.contains("_total") || name.contains("_bucket") {
            assert!(after[name] >= *value, "{name} fell from {value} to {}", after[name]);
        }
    }
}

/// Upgrades under flows, broadcasts, binds and rebinds; `step` does one upgrade, whatever comes of it.
fn under_traffic(relay: &Installed, rounds: usize, mut step: impl FnMut(usize)) {
    let mut clients: Vec<Client> = (1..=4).map(|member| Client::new(relay.udp, member)).collect();
    let leases: Vec<Lease> = clients.iter_mut().map(Client::bind).collect();
    for (client, lease) in clients.iter().zip(&leases) {
        assert!(client.probe(lease));
    }
    eventually("the leases", || relay.metric("lanrage_relay_leases{state=\"active\"}") == 4.0);
    let [a, b, c, d] = std::array::from_fn(|at| &clients[at]);
    let flows = [
        Flow::start(a, &leases[0], one(2), &[b]),
        Flow::start(c, &leases[2], Destination::Everyone, &[d]),
    ];
    let stop = Arc::new(AtomicBool::new(false));
    let churns: Vec<_> = (10..12)
        .map(|member| {
            let (udp, stop) = (relay.udp, stop.clone());
            thread::spawn(move || churn(udp, member, &stop))
        })
        .collect();
    let mut page = relay.scrape().unwrap();
    for round in 0..rounds {
        thread::sleep(Duration::from_millis(100));
        step(round);
        let next = relay.scrape().unwrap();
        assert_counts_go_on(&page, &next);
        page = next;
    }
    thread::sleep(Duration::from_millis(100));
    stop.store(true, Ordering::Relaxed);
    for churn in churns {
        assert!(churn.join().unwrap() > 0);
    }
    let sent: u64 = flows.into_iter().map(Flow::finish).sum();
    assert!(sent > 0);
    eventually("only the flows' leases", || {
        relay.metric("lanrage_relay_leases{state=\"active\"}") == 4.0
    });
    let ended = "lanrage_relay_leases_ended_total{cause=\"idle\"}";
    assert_eq!(relay.metric(ended), 0.0);
    eventually("skew 0", || skew(&relay.scrape().unwrap()) == 0.0);
    let dropped = relay.scrape().unwrap();
    let dropped = dropped.iter().filter(|(name, value)| {
        name.starts_with("lanrage_relay_packets_dropped_total") && **value > 0.0
    });
    assert_eq!(dropped.count(), 0);
}

fn upgrades_lose_nothing(backends: [&str; 2]) {
    let mut relay = Installed::new();
    relay.configure(backends[0], LEASES);
    relay.start();
    let mut last = relay.pid();
    let rounds = if is_soak() { 100 } else { 3 };
    under_traffic(&relay, rounds, |round| {
        let backend = backends[(round + 1) % 2];
        relay.configure(backend, LEASES);
        let said = relay.upgrade().unwrap();
        let pid = said.trim().strip_prefix("{\"pid\":").unwrap().strip_suffix('}').unwrap();
        let pid = pid.parse().unwrap();
        assert_ne!(pid, last);
        last = pid;
        eventually("the new process to name itself", || relay.owner() == Some(pid));
        let in_use = format!("lanrage_relay_io_backend{{backend=\"{backend}\"}}");
        assert_eq!(relay.metric(&in_use), 1.0);
    });
    let first = relay.child.as_mut().unwrap().wait().unwrap();
    assert_eq!(first.code(), Some(0), "the first process has ended");
    let page = relay.scrape().unwrap();
    assert!(page["lanrage_relay_leases_begun_total"] >= 6.0);
    assert_eq!(page["lanrage_relay_upgrades_total{result=\"done\"}"], rounds as f64);
    assert_eq!(page["lanrage_relay_upgrades_total{result=\"failed\"}"], 0.0);
}

#[test]
fn upgrades_on_io_uring_lose_nothing() {
    upgrades_lose_nothing(["io_uring"; 2]);
}

#[test]
fn upgrades_on_recvmmsg_lose_nothing() {
    upgrades_lose_nothing(["recvmmsg"; 2]);
}

#[test]
fn upgrades_between_the_back_ends_lose_nothing() {
    upgrades_lose_nothing(["io_uring", "recvmmsg"]);
}

#[test]
fn a_new_process_that_cannot_serve_changes_nothing() {
    let mut relay = Installed::new();
    relay.configure("auto", LEASES);
    relay.start();
    let pid = relay.pid();
    under_traffic(&relay, 5, |round| {
        let (says, settings) = match round {
            0 => {
                relay.install_script("exit 1");
                ("the new process", LEASES)
            }
            1 => {
                relay.install_script("kill -SEGV $$");
                ("the new process", LEASES)
            }
            2 => {
                std::fs::remove_file(relay.program()).unwrap();
                ("starting", LEASES)
            }
            3 => {
                relay.install(Path::new(env!("CARGO_BIN_EXE_lanrage-relay")));
                ("leases is 9, and was 1024", 9)
            }
            _ => {
                relay.install_script("sleep 60");
                ("did not get ready", LEASES)
            }
        };
        relay.configure("auto", settings);
        let error = relay.upgrade().unwrap_err();
        assert!(error.contains(says), "round {round}: {error}");
        assert_eq!(relay.pid(), pid);
    });
    // And then one that can.
    relay.configure("auto", LEASES);
    relay.install(Path::new(env!("CARGO_BIN_EXE_lanrage-relay")));
    relay.upgrade().unwrap();
    eventually("another process", || relay.owner().is_some_and(|owner| owner != pid));
    relay.until_ready();
    assert_eq!(relay.metric("lanrage_relay_upgrades_total{result=\"done\"}"), 1.0);
    assert_eq!(relay.metric("lanrage_relay_upgrades_total{result=\"failed\"}"), 5.0);
}

/// The next process bound again, and `drain --exit` never ended it.
#[test]
fn regression_a_drain_outlives_an_upgrade() {
    let mut relay = Installed::new();
    relay.configure("auto", LEASES);
    relay.start();
    let mut client = Client::new(relay.udp, 1);
    let lease = client.bind();
    assert!(client.probe(&lease));
    eventually("the lease", || relay.metric("lanrage_relay_leases{state=\"active\"}") == 1.0);
    relay.ctl(&["drain", "--deadline", "60", "--exit"]).unwrap();
    relay.upgrade().unwrap();
    assert_eq!(relay.metric("lanrage_relay_draining"), 1.0);
    assert_eq!(Client::new(relay.udp, 2).try_bind().unwrap_err(), Refusal::Draining);
    client.socket.send(&Message::Release.seal(&lease.key_to_relay, lease.handle, 1)).unwrap();
    eventually("the relay to end with its last lease", || relay.scrape().is_none());
}

/// The new process received before it knew the other relays, and dropped what they had sent.
#[test]
fn regression_frames_between_relays_survive_an_upgrade() {
    const OTHER: RelayId = RelayId(8);
    let mut relay = Installed::new();
    let other_dir = tempfile::tempdir().unwrap();
    let ports = [relay.udp.port(), free_port()];
    let [at, other_at] = ports.map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    let state = relay.dir.path().join("state");
    prepare_all(&[(RELAY, state.as_path(), at), (OTHER, other_dir.path(), other_at)]);
    relay.configure("auto", LEASES);
    relay.start();
    let listen = Some(vec![other_at.into()]);
    let other = Relay::start_with(other_dir.path(), Settings { listen, ..Settings::default() });
    let (mut a, mut b) = (Client::new(relay.udp, 1), Client::new(other.ipv4(), 2));
    let (at_one, at_other) = (a.bind(), b.bind());
    assert!(a.probe(&at_one) && b.probe(&at_other));
    eventually("both leases", || {
        let is_active =
            |page: BTreeMap<_, _>| page["lanrage_relay_leases{state=\"active\"}"] == 1.0;
        is_active(relay.scrape().unwrap()) && is_active(other.page())
    });
    let flows = [
        Flow::start_by(OTHER, &a, &at_one, one(2), &[&b]),
        Flow::start_by(RELAY, &b, &at_other, one(1), &[&a]),
    ];
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(100));
        relay.upgrade().unwrap();
    }
    assert!(flows.into_iter().map(Flow::finish).all(|sent| sent > 0));
    other.stop();
}

#[test]
fn sigusr2_upgrades() {
    let mut relay = Installed::new();
    relay.configure("auto", LEASES);
    relay.start();
    let pid = relay.pid();
    let process = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::USR2).unwrap();
    eventually("another process", || relay.owner().is_some_and(|owner| owner != pid));
    relay.until_ready();
}

/// A process that is no relay gives what one begins with.
struct Giver {
    installed: Installed,
    estate: Estate,
    idle: Idle,
    leases: Vec<(UdpSocket, u32, u32)>,
}

const MEMBERS: u8 = 4;

impl Giver {
    fn new() -> Self {
        let installed = Installed::new();
        installed.configure("auto", LEASES);
        let state = StateDir::open(&installed.dir.path().join("state")).unwrap();
        let identity = state.keys().unwrap().binder_identity(&state.enrolment().unwrap().unwrap());
        let listen =
            vec![installed.udp, SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], installed.udp.port()))];
        let steered = Steered::bind(&listen, 2, SteeringSetting::Auto).unwrap();
        let capacity = Capacity::for_leases(LEASES);
        let memory = Memory::new(capacity).unwrap();
        let (table, _) = lanrage_relay_table::create(memory.table.words(), capacity).unwrap();
        let now = Now { ms: 0, unix_s: common::unix_s() };
        let words = memory.binder.words();
        let mut binder =
            Binder::new_in(words, identity, table, Classes::default(), [7; 32], now).unwrap();
        let leases = (1..=MEMBERS).map(|member| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(installed.udp).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let given = GivenLease {
                session: SessionId(5),
                member: Member::new(member).unwrap(),
                generation: Generation(1),
                key: KeyPrefix([1; 8]),
                next: RelayId(0),
                rate_class: RateClass(2),
                expires: now.unix_s + 600,
                instance: [member; 16],
                address: socket.local_addr().unwrap(),
                local: LocalId(0),
            };
            let (handle, tag) = binder.give_lease(now, &given).unwrap();
            (socket, handle.to_bits(), tag.0)
        });
        let leases = leases.collect();
        let estate = Estate {
            listen,
            shards: 2,
            steering: steered.state.as_str().to_owned(),
            sockets: steered.duplicate().unwrap(),
            capacity,
            memory,
            lock: state.lock().duplicate().unwrap(),
            listeners: Vec::new(),
            clock_origin_ns: Estate::clock_now_ns(),
        };
        Self { installed, estate, idle: Idle { binder, shards: 3 }, leases }
    }

    fn give(&mut self) -> Result<(), GiveError> {
        let (channel, child) = handover::start(&mut self.installed.run()).unwrap();
        let child = self.installed.child.insert(child);
        handover::give(&channel, &self.estate, &mut self.idle, || {
            child.kill().unwrap();
            child.wait().unwrap();
        })
    }
}

#[test]
fn a_relay_begins_with_the_leases_it_is_given() {
    let mut giver = Giver::new();
    // What arrives before anybody receives is not lost.
    let frame = |to: u8, (_, handle, tag): &(UdpSocket, u32, u32), from: u8| {
        let from = Member::new(from).unwrap();
        let (handle, tag) = (lanrage_proto::Handle(*handle), lanrage_proto::Tag(*tag));
        let sent = Sent::new(RelayId(0), one(to), from, handle, tag);
        [sent.encode().as_slice(), b"early"].concat()
    };
    giver.leases[0].0.send(&frame(2, &giver.leases[0], 1)).unwrap();
    giver.give().unwrap();
    let mut buffer = [0; 64];
    let len = giver.leases[1].0.recv(&mut buffer).unwrap();
    assert!(buffer[..len].ends_with(b"early"));
    giver.installed.until_ready();
    let leases = "lanrage_relay_leases{state=\"active\"}";
    assert_eq!(giver.installed.metric(leases), f64::from(MEMBERS));
    giver.installed.upgrade().unwrap();
    giver.leases[2].0.send(&frame(4, &giver.leases[2], 3)).unwrap();
    assert!(giver.leases[3].0.recv(&mut buffer).is_ok());
}

/// A relay of another version had other lines in the same place.
#[test]
fn a_table_of_another_layout_is_refused() {
    let mut giver = Giver::new();
    giver.estate.memory.table.words()[1].fetch_add(1, Ordering::Relaxed);
    let error = giver.give().unwrap_err().to_string();
    assert!(error.contains("layout 2"), "{error}");
    assert!(matches!(giver.give(), Err(GiveError::Refused(_))), "as often as one likes");
    giver.estate.memory.table.words()[1].fetch_sub(1, Ordering::Relaxed);
    giver.give().unwrap();
    giver.installed.until_ready();
}
