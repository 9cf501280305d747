//! Control being down never stops play.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::thread::sleep;
use std::time::{Duration, Instant};

use lanrage_lab::{NatKind, Rebind};
use lanrage_scenarios::{Deployment, Flow, Plan, rounds};

const PROMISED: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(30);

/// Tickets of 20 s are long dead when the outage ends: 5 minutes whole, 1 in the short form.
#[test]
fn play_goes_on_for_minutes_without_control() {
    let outage = Duration::from_secs(rounds(60, 300) as u64);
    let plan = Plan {
        ticket_lifetime: Duration::from_secs(20),
        ..Plan::behind(NatKind::PortRestrictedCone, 4)
    };
    let mut lab = Deployment::start(&plan).unwrap();
    lab.form_party("outage").unwrap();
    let kicked = lab.players[3].member_name().to_owned();
    lab.players[0].ping(lab.players[3].address(), PATIENCE).unwrap();
    lab.players[0].kick(&kicked).unwrap();
    sleep(PROMISED);

    let flows: Vec<Flow> = [(0, 1), (1, 0), (2, 1)]
        .map(|(from, to)| Flow::start(&lab.players[from], &lab.players[to], INTERVAL).unwrap())
        .into();
    sleep(Duration::from_secs(1));
    lab.control.kill().unwrap();
    let killed = Instant::now();
    sleep(outage / 3);
    let used = lab.relay_in_use(0).unwrap();
    lab.relays[used].restart().unwrap();
    sleep(outage / 3);
    lab.nats[1].rebind(Rebind::NewAddress).unwrap();
    sleep(outage / 3);
    assert!(killed.elapsed() >= outage);
    assert!(lab.players[3].ping(lab.players[0].address(), PROMISED).is_err(), "the kicked plays");

    lab.control.restart().unwrap();
    let back = Instant::now();
    sleep(Duration::from_secs(15));
    let observed = Instant::now();
    for flow in flows {
        let gap = flow.finish().longest_gap_between(killed, observed);
        assert!(gap <= PROMISED, "{gap:?} without traffic");
    }
    // Nobody needs a hand: tickets are renewed, and a kick and an invite work again.
    for player in &lab.players[..3] {
        player.wait_for_control(PATIENCE.saturating_sub(back.elapsed())).unwrap();
    }
    let invite = lab.players[0].invite(1).unwrap();
    lab.players[3].forget_everything().unwrap();
    lab.players[3].join(&invite).unwrap();
    lab.players[3].ping(lab.players[0].address(), PATIENCE).unwrap();
}
