//! Other projects' programs, with the settings that serve them best on one core.

use std::net::{SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{Kept, Running, START_PATIENCE, quilkin, turn};
use crate::topology::Topology;
use crate::workload::Workload;

/// Before a probe is sent again.
const PROBE_PATIENCE: Duration = Duration::from_millis(50);

/// Another project's relay or proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    /// coturn, a TURN server in C, as Debian packs it.
    Coturn,
    /// turn-server, a TURN server in Rust, of crates.io.
    TurnServer,
    /// quilkin, a proxy for game servers, of crates.io.
    Quilkin,
}

/// A rival that is up, before its way is proven.
pub(super) struct Started {
    pub(super) process: lanrage_lab::Process,
    pub(super) directory: tempfile::TempDir,
    /// By flow.
    pub(super) prefixes: Vec<Vec<u8>>,
    pub(super) answer_prefix_len: usize,
}

impl Rival {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Coturn, Self::TurnServer, Self::Quilkin];

    /// The name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Coturn => "coturn",
            Self::TurnServer => "turn-server",
            Self::Quilkin => "quilkin",
        }
    }

    /// How it is set, for the results.
    #[must_use]
    pub fn settings(self) -> &'static str {
        match self {
            Self::Coturn => turn::COTURN_SETTINGS,
            Self::TurnServer => turn::TURN_SERVER_SETTINGS,
            Self::Quilkin => quilkin::SETTINGS,
        }
    }

    /// Its program: coturn is Debian's, `make rivals` builds the others.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn program(self) -> anyhow::Result<PathBuf> {
        let built = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.rivals/bin"));
        let (path, remedy) = match self {
            Self::Coturn => ("/usr/bin/turnserver".into(), "make setup"),
            Self::TurnServer | Self::Quilkin => (built.join(self.name()), "make rivals"),
        };
        if !path.is_file() {
            bail!("{} is missing: run `{remedy}`", path.display());
        }
        Ok(path)
    }

    pub(super) fn start(self, topology: &Topology, workload: &Workload) -> anyhow::Result<Running> {
        let program = self.program()?.display().to_string();
        let started = match self {
            Self::Coturn => turn::start_coturn(&program, topology, workload)?,
            Self::TurnServer => turn::start_turn_server(&program, topology, workload)?,
            Self::Quilkin => quilkin::start(&program, topology, workload)?,
        };
        let relay = topology.road().relay;
        topology.enter(|| {
            prove(relay, workload, &started)
                .with_context(|| format!("its log is {}", started.process.log().display()))
        })??;
        let Started { process, directory, prefixes, answer_prefix_len } = started;
        Ok(Running {
            process: Some(process),
            kept: Some(Kept::Directory(directory)),
            prefixes,
            answer_prefix_len,
        })
    }
}

/// Sends a datagram by each flow until it arrives: proves the set-up, and lets those that keep
/// sessions open them before anything is counted.
fn prove(relay: SocketAddrV4, workload: &Workload, started: &Started) -> anyhow::Result<()> {
    let addresses: Vec<SocketAddrV4> = workload.addresses().collect();
    let mut buffer = [0; 2048];
    // The first one also waits for the rival to come up.
    let mut patience = START_PATIENCE;
    for ((flow, prefix), len) in workload.flows().zip(&started.prefixes).zip(payload_lens(workload))
    {
        let (source, target) = (addresses[flow.source as usize], addresses[flow.target as usize]);
        let payload = source.to_string().into_bytes();
        let payload: Vec<u8> = payload.into_iter().cycle().take(len).collect();
        let datagram = [&prefix[..], &payload].concat();
        let receiver = UdpSocket::bind(target)?;
        receiver.set_read_timeout(Some(PROBE_PATIENCE))?;
        let sender = UdpSocket::bind(source)?;
        let deadline = Instant::now() + patience;
        'arrival: loop {
            sender.send_to(&datagram, relay)?;
            while let Ok(len) = receiver.recv(&mut buffer) {
                if buffer[..len].get(started.answer_prefix_len..) == Some(&payload[..]) {
                    break 'arrival;
                }
            }
            if Instant::now() > deadline {
                bail!("nothing comes from {source} to {target}");
            }
        }
        patience = START_PATIENCE / 10;
    }
    Ok(())
}

/// Bytes of payload, by flow.
pub(super) fn payload_lens(workload: &Workload) -> impl Iterator<Item = usize> + '_ {
    workload
        .groups
        .iter()
        .flat_map(|group| std::iter::repeat_n(group.payload_len, group.population.leases as usize))
}
