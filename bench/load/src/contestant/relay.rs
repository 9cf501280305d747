//! The relay, with leases that it begins with: they come by the hand-over that an upgrade uses, so a
//! million of them take seconds.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use ed25519_dalek::SigningKey;
use lanrage_lab::Host;
use lanrage_proto::frame::data::Sent;
use lanrage_proto::ids::{
    Destination, Generation, KeyId, Member, PoolId, RateClass, RelayId, SessionId,
};
use lanrage_proto::map::{RelayMap, SigningKeyEntry, root_hash};
use lanrage_proto::signed::RelayCertificate;
use lanrage_proto::{DeviceKey, Handle, Signature, Tag};
use lanrage_relay::config::SteeringSetting;
use lanrage_relay::handover::{self, Estate, Idle, Memory};
use lanrage_relay::state::{Enrolment, StateDir, Told};
use lanrage_relay::steering::Steered;
use lanrage_relay_core::{Binder, Classes, GivenLease, KeyPrefix, Now};
use lanrage_relay_table::{Capacity, LocalId};
use lanrage_relay_uring::BackendKind;
use tempfile::TempDir;

use super::{Kept, Running};
use crate::topology::Topology;
use crate::workload::Workload;

/// The relay's number in its certificate.
pub(crate) const RELAY: RelayId = RelayId(7);
/// Of its certificate and of tickets.
pub(crate) const POOL: PoolId = PoolId(3);
/// No limits: the rate class that exists for measuring.
pub(crate) const UNLIMITED: RateClass = RateClass(2);
/// A player's.
const PLAYER: RateClass = RateClass(0);
/// In the contestant's namespace.
const METRICS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9090);
const METRICS_PATIENCE: Duration = Duration::from_secs(5);

/// A running relay.
#[derive(Debug)]
pub(crate) struct Relay {
    child: Child,
    host: Host,
    /// Of tickets that this relay takes.
    pub(crate) signing_key: SigningKey,
    _directory: TempDir,
}

pub(super) fn start(
    kind: BackendKind,
    topology: &Topology,
    workload: &Workload,
) -> anyhow::Result<Running> {
    let directory = topology.directory()?;
    let signing_key = SigningKey::from_bytes(&random()?);
    let state = prepare(directory.path(), &signing_key, topology.road().relay)?;
    let (mut giver, leases) = Giver::new(topology, workload, &state)?;
    let log = directory.path().join("log");
    let child = giver.give(kind, topology, &directory, &log).with_context(|| {
        format!("the relay said: {}", std::fs::read_to_string(&log).unwrap_or_default().trim())
    })?;
    let relay = Relay { child, host: topology.host().clone(), signing_key, _directory: directory };
    until_scraped(&relay)?;
    let memberships: Vec<(u32, u8)> = workload.memberships().collect();
    let broadcasts: Vec<bool> = workload.broadcasts().collect();
    let prefixes = workload
        .flows()
        .map(|flow| {
            let (source, target) = (flow.source as usize, flow.target as usize);
            let to = match broadcasts[source] {
                true => Destination::Everyone,
                false => Destination::One(member(memberships[target].1)?),
            };
            let (handle, tag) = leases[source];
            Ok(frame(handle, tag, memberships[source].1, to)?.to_vec())
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(Running {
        process: None,
        kept: Some(Kept::Relay(Box::new(relay))),
        prefixes,
        answer_prefix_len: 16,
    })
}

impl Relay {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// All samples of one scrape.
    pub(crate) fn scrape(&self) -> anyhow::Result<Metrics> {
        let page = self.host.enter(|| -> anyhow::Result<String> {
            let mut stream = TcpStream::connect(METRICS)?;
            stream.set_read_timeout(Some(METRICS_PATIENCE))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n")?;
            let mut page = String::new();
            stream.read_to_string(&mut page)?;
            Ok(page)
        })?;
        Ok(Metrics(page.context("reading the relay's metrics")?))
    }

    /// Bytes resident: what `VmRSS` counts, and of the memory that leases are in all that is
    /// allocated, whether this process has it mapped by now or not.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let process = format!("/proc/{}", self.child.id());
        let status = std::fs::read_to_string(format!("{process}/status"))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        let of = |name: &str| kib(name).with_context(|| format!("{process}/status has no {name}"));
        let (all, shared) = (of("VmRSS:")? << 10, of("RssShmem:")? << 10);
        let mut leases = 0;
        for descriptor in std::fs::read_dir(format!("{process}/fd"))? {
            let path = descriptor?.path();
            let name = std::fs::read_link(&path).unwrap_or_default();
            if name.to_string_lossy().starts_with("/memfd:lanrage") {
                leases += std::fs::metadata(&path)?.blocks() * 512;
            }
        }
        Ok(all - shared + shared.max(leases))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may be dead already, and nobody else waits for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A page of the relay's.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of all samples whose name and labels begin with `name`.
    pub(crate) fn sum(&self, name: &str) -> anyhow::Result<f64> {
        let samples = self.0.lines().filter(|line| line.starts_with(name));
        let values: Option<Vec<f64>> =
            samples.map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect();
        match values {
            Some(values) if !values.is_empty() => Ok(values.iter().sum()),
            _ => bail!("the relay has no metric {name}"),
        }
    }
}

/// A relay without threads, that another takes over from.
struct Giver {
    estate: Estate,
    idle: Idle,
}

impl Giver {
    fn new(
        topology: &Topology,
        workload: &Workload,
        state: &StateDir,
    ) -> anyhow::Result<(Self, Vec<(Handle, Tag)>)> {
        let enrolment = state.enrolment()?.context("the enrolment that was just written")?;
        let identity = state.keys()?.binder_identity(&enrolment);
        let listen = vec![topology.road().relay.into()];
        let bind = || Steered::bind(&listen, 1, SteeringSetting::Auto);
        let steered = topology.host().enter(bind)?.context("binding the relay's sockets")?;
        let sockets = steered.duplicate().context("duplicating the relay's sockets")?;
        let capacity = Capacity::for_leases(workload.leases() + workload.spare);
        let memory = Memory::new(capacity).context("memory for leases")?;
        let (table, _) = lanrage_relay_table::create(memory.table.words(), capacity)?;
        let now = Now { ms: 0, unix_s: unix_s() };
        let clock_origin_ns = Estate::clock_now_ns();
        let words = memory.binder.words();
        let mut binder =
            Binder::new_in(words, identity, table, Classes::default(), random()?, now)?;
        let leases = workload
            .addresses()
            .zip(workload.memberships())
            .zip(workload.broadcasts())
            .map(|((address, (session, number)), broadcasts)| {
                let given = GivenLease {
                    session: SessionId(u64::from(session) + 1),
                    member: member(number)?,
                    generation: Generation(1),
                    key: KeyPrefix([number; 8]),
                    next: RelayId(0),
                    rate_class: if broadcasts { PLAYER } else { UNLIMITED },
                    expires: now.unix_s + 3600,
                    instance: [number; 16],
                    address: address.into(),
                    local: LocalId(0),
                };
                let (handle, tag) = binder.give_lease(now, &given)?;
                Ok((Handle(handle.to_bits()), Tag(tag.0)))
            })
            .collect::<anyhow::Result<_>>()?;
        let estate = Estate {
            listen,
            shards: 1,
            steering: steered.state.as_str().to_owned(),
            capacity,
            memory,
            lock: state.lock().duplicate().context("the state directory's lock")?,
            listeners: Vec::new(),
            clock_origin_ns,
            sockets,
        };
        let shards = estate.sockets.len();
        Ok((Self { estate, idle: Idle { binder, shards } }, leases))
    }

    fn give(
        &mut self,
        kind: BackendKind,
        topology: &Topology,
        directory: &TempDir,
        log: &Path,
    ) -> anyhow::Result<Child> {
        let program = crate::binaries::beside(&std::env::current_exe()?, "lanrage-relay")?;
        let mut command = topology.command(&program.display().to_string());
        let backend = match kind {
            BackendKind::Uring => "io_uring",
            BackendKind::Mmsg => "recvmmsg",
        };
        command.args(["run", "--listen", &topology.road().relay.to_string()]);
        command.args(["--backend", backend, "--shards", "1"]);
        command.args(["--leases", &self.estate.capacity.leases.to_string()]);
        command.args(["--metrics-listen", &METRICS.to_string()]);
        command.arg("--state-dir").arg(directory.path());
        let file = std::fs::File::create(log).context("creating the relay's log")?;
        command.stdout(Stdio::null()).stderr(file).process_group(0);
        let (channel, mut child) = handover::start(&mut command).context("starting the relay")?;
        handover::give(&channel, &self.estate, &mut self.idle, || {
            // It may be dead already.
            let _ = child.kill();
            let _ = child.wait();
        })?;
        Ok(child)
    }
}

/// Fills a state directory as enrolling and one stream from control do.
fn prepare(
    directory: &Path,
    signing_key: &SigningKey,
    relay: SocketAddrV4,
) -> anyhow::Result<StateDir> {
    let state = StateDir::open(directory)?;
    let keys = state.keys()?;
    let root = SigningKey::from_bytes(&random()?);
    let key = DeviceKey(signing_key.verifying_key().to_bytes());
    let map = RelayMap {
        serial: 1,
        issued: unix_s(),
        pool: POOL,
        signing_keys: vec![SigningKeyEntry { id: KeyId(1), key }],
        relays: Vec::new(),
    };
    let certificate = RelayCertificate {
        key_id: KeyId(1),
        pool: POOL,
        relay: RELAY,
        ipv4: Some(relay),
        ipv6: None,
        key: keys.tunnel_key(),
        not_after: unix_s() + 86_400,
        signature: Signature([0; 64]),
    };
    let root_hash = root_hash(&DeviceKey(root.verifying_key().to_bytes()));
    let enrolment = Enrolment { root: root_hash, relay: RELAY, pool: POOL, token: None };
    state.set_enrolment(&enrolment)?;
    state.set_told(&Told {
        certificate: Some(certificate.sign(signing_key)),
        map: Some(map.sign(&root)),
        ..Told::default()
    })?;
    Ok(state)
}

pub(crate) fn frame(
    handle: Handle,
    tag: Tag,
    source: u8,
    to: Destination,
) -> anyhow::Result<[u8; 16]> {
    Ok(Sent::new(RelayId(0), to, member(source)?, handle, tag).encode())
}

pub(crate) fn member(number: u8) -> anyhow::Result<Member> {
    Member::new(number).context("a member number of 1 to 250")
}

pub(crate) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}

pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Waits until the relay serves its metrics.
fn until_scraped(relay: &Relay) -> anyhow::Result<Metrics> {
    let deadline = Instant::now() + METRICS_PATIENCE;
    loop {
        match relay.scrape() {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            result => return result,
        }
    }
}
