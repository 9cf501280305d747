//! Who is measured: reflectors, the kernel, the relay, its [rivals](Rival). A set-up may talk to a
//! contestant from any client's address.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use lanrage_lab::Process;
use lanrage_relay_uring::BackendKind;

use crate::topology::Topology;
use crate::workload::Workload;

mod kernel;
mod quilkin;
pub(crate) mod relay;
mod rival;
mod turn;
mod turn_client;

pub use rival::Rival;

/// How a reflector, `relay/uring/examples/reflector`, talks to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReflectorKind {
    /// recvmmsg with GRO and sendmmsg, in a bare loop.
    Bare,
    /// The relay's recvmmsg back end.
    Recvmmsg,
    /// The relay's io_uring back end.
    IoUring,
}

impl ReflectorKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Recvmmsg => "recvmmsg",
            Self::IoUring => "io_uring",
        }
    }
}

/// What forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    /// It looks nothing up and checks nothing.
    Reflector(ReflectorKind),
    /// The relay on one of its back ends.
    Relay(BackendKind),
    /// nftables DNAT: the kernel forwards by itself, and no socket is in the way.
    Nftables,
    /// Another project's relay or proxy.
    Rival(Rival),
}

/// A contestant that is up and forwards.
#[derive(Debug)]
pub struct Running {
    /// Without one the kernel forwards.
    process: Option<Process>,
    /// What must be undone or kept until the end.
    kept: Option<Kept>,
    /// By flow of the workload: what goes before the payload.
    pub prefixes: Vec<Vec<u8>>,
    /// Bytes before the payload of what the contestant sends.
    pub answer_prefix_len: usize,
}

#[derive(Debug)]
enum Kept {
    Directory(#[expect(dead_code, reason = "held for its drop")] tempfile::TempDir),
    Relay(Box<relay::Relay>),
    Rules(#[expect(dead_code, reason = "held for its drop")] kernel::Rules),
}

impl Contestant {
    /// The name in results and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reflector(ReflectorKind::Bare) => "reflector bare recvmmsg",
            Self::Reflector(ReflectorKind::Recvmmsg) => "reflector recvmmsg",
            Self::Reflector(ReflectorKind::IoUring) => "reflector io_uring",
            Self::Relay(BackendKind::Mmsg) => "relay recvmmsg",
            Self::Relay(BackendKind::Uring) => "relay io_uring",
            Self::Nftables => "nftables",
            Self::Rival(rival) => rival.name(),
        }
    }

    /// How it is set, for the results.
    #[must_use]
    pub fn settings(self) -> &'static str {
        match self {
            Self::Reflector(ReflectorKind::Bare) => "batches of 64",
            Self::Reflector(_) => "the relay's engine with its default options, one shard",
            Self::Relay(_) => {
                "one shard, the rate class without limits, metrics scraped before and after"
            }
            Self::Nftables => "a map from source address to target, masquerade",
            Self::Rival(rival) => rival.settings(),
        }
    }

    /// Starts it and sets it up for a workload. The sink must not stand yet: set-ups talk.
    ///
    /// # Errors
    ///
    /// It does not start, or does not let its clients in.
    pub fn start(self, topology: &Topology, workload: &Workload) -> anyhow::Result<Running> {
        topology.wait_for_the_port()?;
        match self {
            Self::Reflector(kind) => start_reflector(kind, topology, workload),
            Self::Relay(kind) => relay::start(kind, topology, workload),
            Self::Nftables => kernel::start(topology, workload),
            Self::Rival(rival) => rival.start(topology, workload),
        }
        .with_context(|| format!("starting {}", self.name()))
    }
}

impl Running {
    /// Nothing runs: for what a machine costs by itself.
    #[must_use]
    pub fn nobody(workload: &Workload) -> Self {
        let prefixes = workload.flows().map(|flow| reflector_prefix(flow.target)).collect();
        Self { process: None, kept: None, prefixes, answer_prefix_len: 16 }
    }

    /// The process whose time counts.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id).or_else(|| self.relay().map(relay::Relay::id))
    }

    /// The last line of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = self.process.as_ref().and_then(|process| fs::read_to_string(process.log()).ok());
        log.and_then(|log| log.lines().last().map(str::to_owned)).unwrap_or_default()
    }

    /// If it is the relay.
    pub(crate) fn relay(&self) -> Option<&relay::Relay> {
        match &self.kept {
            Some(Kept::Relay(relay)) => Some(relay),
            _ => None,
        }
    }
}

/// Beyond this a start has failed.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// The data frame's 16 bytes, with the target's number where a lease's handle stands.
fn reflector_prefix(target: u32) -> Vec<u8> {
    let mut prefix = vec![0; 16];
    prefix[0] = 0xf1;
    prefix[8..12].copy_from_slice(&target.to_be_bytes());
    prefix
}

fn start_reflector(
    kind: ReflectorKind,
    topology: &Topology,
    workload: &Workload,
) -> anyhow::Result<Running> {
    let directory = topology.directory()?;
    let targets = directory.path().join("targets");
    let mut file = std::io::BufWriter::new(fs::File::create(&targets)?);
    for target in workload.addresses() {
        writeln!(file, "{target}")?;
    }
    file.into_inner().context("writing the targets")?;
    let this = std::env::current_exe().context("finding this program")?;
    let program = crate::binaries::beside(&this, "examples/reflector")?;
    let mut command = topology.command(&program.display().to_string());
    command.args([kind.as_str(), &topology.road().relay.to_string()]).arg(&targets);
    let mut process = topology.host().spawn("reflector", command)?;
    process.wait_for_log("ready", START_PATIENCE)?;
    Ok(Running {
        process: Some(process),
        kept: Some(Kept::Directory(directory)),
        prefixes: workload.flows().map(|flow| reflector_prefix(flow.target)).collect(),
        answer_prefix_len: 16,
    })
}
