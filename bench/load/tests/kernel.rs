//! The generator, the sink and contestants on the real kernel: what is sent arrives where it should,
//! and both ends count alike. Nothing here asserts how fast.

use std::time::Duration;

use lanrage_bench::contestant::{Contestant, ReflectorKind, Rival};
use lanrage_bench::round::{self, Load};
use lanrage_bench::topology::Topology;
use lanrage_bench::workload::Workload;
use lanrage_relay_uring::BackendKind;

/// Slow enough for any machine.
const RATE: f64 = 2_000.0;

fn passes(topology: &Topology, contestant: Contestant, workload: &Workload) -> anyhow::Result<()> {
    let length = Duration::from_millis(300);
    let outcome = round::run(topology, contestant, workload, Load::Paced(RATE), length)?;
    assert!(outcome.delivered > 0, "{}: {outcome:?}", contestant.name());
    assert_eq!(outcome.strays, 0, "{}: {outcome:?}", contestant.name());
    // What is on its way when the counters are read is in one count only.
    assert!(outcome.loss().abs() < 0.5, "{}: {outcome:?}", contestant.name());
    assert!(outcome.latency_ns[0] > 0.0, "{}: {outcome:?}", contestant.name());
    for class in outcome.delivered_by_class.iter().take(workload.groups.len()) {
        assert!(*class > 0, "each class arrives: {outcome:?}");
    }
    Ok(())
}

#[test]
fn every_contestant_forwards_every_class() {
    let topology = Topology::new().unwrap();
    let workload = Workload::mixed();
    for contestant in [
        Contestant::Reflector(ReflectorKind::Bare),
        Contestant::Reflector(ReflectorKind::Recvmmsg),
        Contestant::Reflector(ReflectorKind::IoUring),
        Contestant::Nftables,
    ] {
        passes(&topology, contestant, &workload).unwrap();
    }
    // Its binds take half a millisecond each, so fewer leases.
    for kind in [BackendKind::Uring, BackendKind::Mmsg] {
        passes(&topology, Contestant::Relay(kind), &Workload::game(40)).unwrap();
    }
    assert!(round::baseline(&topology, Duration::from_millis(200)).unwrap() >= 0.0);
}

/// coturn is on each machine after `make setup`; the others only where `make rivals` has run.
#[test]
fn rivals_forward_by_their_own_protocols() {
    let topology = Topology::new().unwrap();
    let workload = Workload::game(40);
    assert!(Rival::Coturn.program().is_ok(), "run `make setup`");
    for rival in Rival::ALL.into_iter().filter(|rival| rival.program().is_ok()) {
        passes(&topology, Contestant::Rival(rival), &workload).unwrap();
    }
}
