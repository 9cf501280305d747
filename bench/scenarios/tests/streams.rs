//! Members whose network blocks UDP play by streams, and by UDP again when it is back.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lanrage_lab::{NatKind, Traffic};
use lanrage_scenarios::{
    Arrivals, Deployment, Flow, Plan, Player, PlayerPlan, RelayPlan, eventually, rounds,
};

const FALL_BACK: Duration = Duration::from_secs(5);
const RETURN: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(10);

fn party(players: usize) -> Deployment {
    let relay = RelayPlan { streams: true, ..RelayPlan::default() };
    let player = PlayerPlan::behind(NatKind::PortRestrictedCone);
    let plan = Plan {
        relays: vec![relay.clone(), relay],
        players: vec![player; players],
        ..Plan::default()
    };
    Deployment::start(&plan).unwrap()
}

/// The player's router lets no UDP through.
fn block_udp(lab: &Deployment, player: usize) {
    lab.nats[player].gateway().isolate(Traffic::udp()).unwrap();
}

fn let_udp_through(lab: &Deployment, player: usize) {
    lab.nats[player].gateway().heal().unwrap();
}

/// Whether all leases that a player has, and one at least, are at streams, or none is.
fn all_by_stream(player: &Player, wanted: bool) -> anyhow::Result<bool> {
    let status = player.status()?;
    let relays = status["relays"].as_array().unwrap();
    let alive: Vec<_> = relays.iter().filter(|relay| relay["state"] == "alive").collect();
    Ok(alive.len() == 2 && alive.iter().all(|relay| relay["stream"] == wanted))
}

fn wait_until_by_stream(player: &Player, wanted: bool, patience: Duration) {
    let what = if wanted { "leases at streams" } else { "leases by UDP" };
    eventually(what, patience, || Ok(all_by_stream(player, wanted)?.then_some(()))).unwrap();
}

/// Of the datagrams between the first that arrived after `from` and the last before `to`, those that
/// did not arrive.
fn lost_between(arrivals: &Arrivals, from: Instant, to: Instant) -> usize {
    let inside = arrivals.received.iter().filter(|(at, _)| (from..=to).contains(at));
    let numbers: BTreeSet<_> = inside.map(|(_, number)| *number).collect();
    let (first, last) = (numbers.first().unwrap(), numbers.last().unwrap());
    (last - first + 1) as usize - numbers.len()
}

#[test]
fn who_has_no_udp_joins_and_plays() {
    let mut lab = party(2);
    block_udp(&lab, 1);
    lab.form_party("streams").unwrap();
    let begun = Instant::now();
    lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
    println!("first answer after {:?}", begun.elapsed());
    wait_until_by_stream(&lab.players[1], true, FALL_BACK);
    let said = lab.players[1].run(&["status"]).unwrap();
    assert!(said.stdout.contains("via stream"), "{}", said.stdout);
    let open: f64 = lab.relays.iter().map(|r| r.metric("lanrage_relay_streams", "").unwrap()).sum();
    assert_eq!(open, 2.0, "the other player needs none");
}

#[test]
fn play_falls_back_to_streams_and_returns_to_udp() {
    let mut lab = party(2);
    lab.form_party("streams").unwrap();
    lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
    for round in 0..rounds(1, 10) {
        let (one, other) = (&lab.players[0], &lab.players[1]);
        let flows = [
            Flow::start(one, other, INTERVAL).unwrap(),
            Flow::start(other, one, INTERVAL).unwrap(),
        ];
        sleep(Duration::from_secs(1));
        let blocked = Instant::now();
        block_udp(&lab, 1);
        sleep(FALL_BACK);
        let fallen_back = Instant::now();
        wait_until_by_stream(other, true, FALL_BACK);
        sleep(Duration::from_secs(2));
        let lifted = Instant::now();
        let_udp_through(&lab, 1);
        wait_until_by_stream(other, false, RETURN);
        let returned = lifted.elapsed();
        sleep(Duration::from_secs(2));
        let end = Instant::now();
        for flow in flows {
            let arrivals = flow.finish();
            let gap = arrivals.longest_gap_between(blocked, fallen_back);
            println!("round {round}: {gap:?} without traffic, back after {returned:?}");
            assert!(gap < FALL_BACK, "round {round}: {gap:?} without traffic");
            assert_eq!(lost_between(&arrivals, fallen_back, end), 0, "round {round}");
        }
        eventually("the streams to be closed", RETURN, || {
            let open = lab.relays.iter().map(|relay| relay.metric("lanrage_relay_streams", ""));
            Ok((open.sum::<anyhow::Result<f64>>()? == 0.0).then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn who_does_not_read_its_stream_harms_nobody_else() {
    let mut lab = party(3);
    block_udp(&lab, 1);
    block_udp(&lab, 2);
    lab.form_party("streams").unwrap();
    for player in [1, 2] {
        lab.players[player].ping(lab.players[0].address(), PATIENCE).unwrap();
    }
    let [host, reader, stalled] = &lab.players[..] else { panic!("three players") };
    let to_reader = Flow::start(host, reader, INTERVAL).unwrap();
    let from_reader = Flow::start(reader, host, INTERVAL).unwrap();
    // 1 ms: what the stalled one does not read piles up.
    let to_stalled = Flow::start(host, stalled, Duration::from_millis(1)).unwrap();
    sleep(Duration::from_secs(1));
    let frozen = Instant::now();
    stalled.daemon().freeze().unwrap();
    sleep(Duration::from_secs(8));
    let end = Instant::now();
    stalled.daemon().thaw().unwrap();
    for flow in [to_reader, from_reader] {
        let arrivals = flow.finish();
        assert_eq!(lost_between(&arrivals, frozen, end), 0);
        let gap = arrivals.longest_gap_between(frozen, end);
        assert!(gap < Duration::from_millis(500), "{gap:?} without traffic");
    }
    drop(to_stalled.finish());
    stalled.ping(host.address(), PATIENCE).unwrap();
}
