//! `lanrage-bench`: arguments and exit code. What is measured, and how, is in the library.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use lanrage_bench::contestant::{self, Contestant};
use lanrage_bench::reflector::{ReflectorKind, reflect};
use lanrage_bench::round::{self, Load};
use lanrage_bench::topology::Topology;
use lanrage_bench::workload::Workload;
use lanrage_relay_uring::BackendKind;
use std::time::Duration;

/// Measures the relay against the kernel's floor.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be a reflector: the benchmark starts it
    #[command(hide = true)]
    Reflect { kind: ReflectorKind, listen: SocketAddrV4, targets: PathBuf },
    Try { which: String, workload: String, rate: f64, seconds: f64 },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Reflect { kind, listen, targets } => {
            reflect(kind, listen, &contestant::read_targets(&targets)?)
        }
        Command::Try { which, workload, rate, seconds } => {
            let topology = Topology::new()?;
            for which in which.split(',') {
            let contestant = match which {
                "bare" => Contestant::Reflector(ReflectorKind::Bare),
                "mmsg" => Contestant::Reflector(ReflectorKind::Recvmmsg),
                "uring" => Contestant::Reflector(ReflectorKind::IoUring),
                "relay" => Contestant::Relay(BackendKind::Uring),
                "relaymmsg" => Contestant::Relay(BackendKind::Mmsg),
                _ => Contestant::Nftables,
            };
            let workload = match workload.as_str() {
                "game" => Workload::game(1000),
                "sparse" => Workload::sparse(1000),
                "voice" => Workload::voice(1000),
                "bulk" => Workload::bulk(),
                _ => Workload::mixed(),
            };
            let load = if rate == 0.0 { Load::FlatOut } else { Load::Paced(rate) };
            let o = round::run(&topology, contestant, &workload, load, Duration::from_secs_f64(seconds))?;
            println!("{:24} {:.0}/s loss {:.3} strays {} process {:.0} ns machine {:.0} ns busy {:.3} waits/pkt {:.3} lat {:?}",
              contestant.name(), o.rate(), o.loss(), o.strays, o.process_ns(), o.machine_ns(0.0), o.used.busy, o.used.waits as f64/o.delivered.max(1) as f64, o.latency_ns);
            }
            Ok(())
        }
    }
}
