//! Play goes on when the relay in use dies, in whatever way, and it serves again when it is back.
#![expect(clippy::print_stdout, reason = "how long each round took is worth seeing")]
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::time::{Duration, Instant};

use lanrage_lab::{Direction, NatKind, Traffic};
use lanrage_scenarios::{BothWays, Deployment, Plan, eventually, rounds};

const PROMISED: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Freeze,
    CutBothWays,
    CutToRelay,
    CutFromRelay,
}

/// A flow each way, and a fault of the relay in use in the middle of it.
fn survives(fault: Fault) {
    let mut lab = Deployment::start(&Plan::behind(NatKind::PortRestrictedCone, 2)).unwrap();
    lab.form_party("failover").unwrap();
    lab.players[1].ping(lab.players[0].address(), Duration::from_secs(10)).unwrap();
    for round in 0..rounds(2, 40) {
        let used = lab.relay_in_use(0).unwrap();
        let play = BothWays::start(&lab.players[0], &lab.players[1]).unwrap();
        let struck = Instant::now();
        strike(&mut lab, used, fault);
        let gap = play.longest_gap_after(struck).unwrap();
        assert!(gap <= PROMISED, "round {round}: {gap:?} without traffic after {fault:?}");
        assert_ne!(lab.relay_in_use(0).unwrap(), used, "round {round}: {fault:?} hit nothing");
        mend(&mut lab, used, fault);
        await_leases(&lab, used);
    }
}

fn strike(lab: &mut Deployment, relay: usize, fault: Fault) {
    let address = lab.relays[relay].host().v4();
    match fault {
        Fault::Kill => lab.relays[relay].kill().unwrap(),
        Fault::Freeze => lab.relays[relay].process().freeze().unwrap(),
        Fault::CutBothWays => {
            for player in &lab.players {
                player.host().isolate(Traffic::with(address)).unwrap();
            }
        }
        Fault::CutToRelay => {
            lab.players[0].host().cut(Direction::Up, Traffic::with(address)).unwrap();
        }
        Fault::CutFromRelay => {
            lab.players[0].host().cut(Direction::Down, Traffic::with(address)).unwrap();
        }
    }
}

fn mend(lab: &mut Deployment, relay: usize, fault: Fault) {
    match fault {
        Fault::Kill => lab.relays[relay].restart().unwrap(),
        Fault::Freeze => lab.relays[relay].process().thaw().unwrap(),
        Fault::CutBothWays => {
            for player in &lab.players {
                player.host().heal().unwrap();
            }
        }
        Fault::CutToRelay | Fault::CutFromRelay => lab.players[0].host().heal().unwrap(),
    }
}

/// Three members, six flows, and the two relays struck in turn, whichever of them is in use.
fn survives_in_turn(fault: Fault) {
    let mut lab = Deployment::start(&Plan::default()).unwrap();
    lab.form_party("failover").unwrap();
    for player in &lab.players[1..] {
        player.ping(lab.players[0].address(), Duration::from_secs(10)).unwrap();
    }
    await_leases(&lab, 0);
    await_leases(&lab, 1);
    let mut longest = Duration::ZERO;
    for round in 0..rounds(2, 100) {
        let relay = round % 2;
        let was_used = lab.relay_in_use(0).unwrap() == relay;
        let play = BothWays::among(&lab.players).unwrap();
        let struck = Instant::now();
        strike(&mut lab, relay, fault);
        let gap = play.longest_gap_after(struck).unwrap();
        assert!(gap <= PROMISED, "round {round}: {gap:?} without traffic after {fault:?}");
        assert_ne!(lab.relay_in_use(0).unwrap(), relay, "round {round}: {fault:?} hit nothing");
        println!("round {round}: relay {relay}, in use: {was_used}, gap {gap:?}");
        longest = longest.max(gap);
        mend(&mut lab, relay, fault);
        await_leases(&lab, relay);
    }
    println!("the longest gap after {fault:?}: {longest:?}");
}

fn await_leases(lab: &Deployment, relay: usize) {
    eventually("the relay to serve", Duration::from_secs(20), || {
        let mut held =
            lab.players.iter().map(|player| player.has_lease_at(lab.relays[relay].name()));
        Ok(held.try_fold(true, |all, held| anyhow::Ok(held? && all))?.then_some(()))
    })
    .unwrap();
}

#[test]
fn killed() {
    survives_in_turn(Fault::Kill);
}

#[test]
fn frozen() {
    survives_in_turn(Fault::Freeze);
}

#[test]
fn cut_off_both_ways() {
    survives(Fault::CutBothWays);
}

#[test]
fn cut_off_on_the_way_to_the_relay() {
    survives(Fault::CutToRelay);
}

#[test]
fn cut_off_on_the_way_from_the_relay() {
    survives(Fault::CutFromRelay);
}
