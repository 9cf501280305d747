//! A relay that its operator drains is left without a packet lost, and used again afterwards.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::thread;
use std::time::{Duration, Instant};

use lanrage_lab::NatKind;
use lanrage_scenarios::{Deployment, Flow, Plan, eventually, rounds};

const INTERVAL: Duration = Duration::from_millis(10);
/// Clients leave 5 s after they were told and ask again within 30 s.
const PATIENCE: Duration = Duration::from_secs(60);

fn play() -> Deployment {
    let mut lab = Deployment::start(&Plan::behind(NatKind::PortRestrictedCone, 2)).unwrap();
    lab.form_party("drain").unwrap();
    lab.players[1].ping(lab.players[0].address(), Duration::from_secs(10)).unwrap();
    lab
}

fn await_leases(lab: &Deployment, relay: usize, wanted: f64) {
    eventually("leases to come or go", PATIENCE, || {
        let leases = lab.relays[relay].metric("lanrage_relay_leases", "active")?;
        Ok((leases == wanted).then_some(()))
    })
    .unwrap();
}

fn assert_nothing_lost(flow: Flow) {
    let arrivals = flow.finish();
    assert_eq!(arrivals.sent - arrivals.received.len() as u64, 0, "of {}", arrivals.sent);
}

#[test]
fn drained_under_traffic_and_used_again() {
    let lab = play();
    for _ in 0..rounds(1, 10) {
        let used = lab.relay_in_use(0).unwrap();
        await_leases(&lab, used, 2.0);
        let flows = [(0, 1), (1, 0)]
            .map(|(from, to)| Flow::start(&lab.players[from], &lab.players[to], INTERVAL).unwrap());
        thread::sleep(Duration::from_secs(2));
        lab.relays[used].ctl(&["drain", "--deadline", "60"]).unwrap();
        await_leases(&lab, used, 0.0);
        assert_ne!(lab.relay_in_use(0).unwrap(), used);
        lab.relays[used].ctl(&["undrain"]).unwrap();
        await_leases(&lab, used, 2.0);
        eventually("the relay to be used again", PATIENCE, || {
            Ok((lab.relay_in_use(0)? == used).then_some(()))
        })
        .unwrap();
        flows.into_iter().for_each(assert_nothing_lost);
    }
}

/// SIGTERM alone does as much, and ends the relay when its clients have gone.
#[test]
fn terminated_under_traffic() {
    let mut lab = play();
    let used = lab.relay_in_use(0).unwrap();
    await_leases(&lab, used, 2.0);
    let flow = Flow::start(&lab.players[0], &lab.players[1], INTERVAL).unwrap();
    thread::sleep(Duration::from_secs(2));
    let begun = Instant::now();
    lab.relays[used].terminate().unwrap();
    println!("the relay ended after {:?}", begun.elapsed());
    thread::sleep(Duration::from_secs(1));
    assert_nothing_lost(flow);
}
