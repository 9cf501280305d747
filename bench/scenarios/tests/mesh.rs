//! Players of whom no two reach the same relay play by two relays.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::time::{Duration, Instant};

use lanrage_lab::{NatKind, Traffic};
use lanrage_scenarios::{BothWays, Deployment, Plan, eventually, rounds, transfer};

const PROMISED: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);
const FILE_LEN: usize = 8 << 20;

/// Two players, of whom each reaches another one of two relays.
fn apart() -> Deployment {
    let mut lab = Deployment::start(&Plan::behind(NatKind::PortRestrictedCone, 2)).unwrap();
    cut_off_from_each_other(&lab);
    lab.form_party("apart").unwrap();
    lab
}

fn cut_off_from_each_other(lab: &Deployment) {
    for (player, relay) in [(0, 1), (1, 0)] {
        let address = lab.relays[relay].host().v4();
        lab.players[player].host().isolate(Traffic::with(address)).unwrap();
    }
}

/// By which relay a player's packets go, and which other one delivers them.
fn way(lab: &Deployment, player: usize) -> (String, Option<String>) {
    let player = &lab.players[player];
    (player.relay_in_use().unwrap(), player.egress_in_use().unwrap())
}

fn name(lab: &Deployment, relay: usize) -> String {
    lab.relays[relay].name().to_owned()
}

#[test]
fn players_that_reach_no_common_relay_play_and_send_files() {
    let lab = apart();
    lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
    for (player, other) in [(0, 1), (1, 0)] {
        assert_eq!(way(&lab, player), (name(&lab, player), Some(name(&lab, other))));
    }
    let play = BothWays::start(&lab.players[0], &lab.players[1]).unwrap();
    let gap = play.longest_gap_after(Instant::now()).unwrap();
    assert!(gap < PROMISED / 2, "{gap:?}");
    for (from, to) in [(0, 1), (1, 0)] {
        let sent = transfer(&lab.players[from], &lab.players[to], FILE_LEN).unwrap();
        assert_eq!(sent.source_digest, sent.target_digest);
    }
}

#[test]
fn play_moves_to_one_relay_when_it_comes_within_reach() {
    let lab = apart();
    lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
    let play = BothWays::start(&lab.players[0], &lab.players[1]).unwrap();
    let healed = Instant::now();
    lab.players[0].host().heal().unwrap();
    let gap = play.longest_gap_after(healed).unwrap();
    assert!(gap < PROMISED / 2, "{gap:?}");
    eventually("one relay to do", PATIENCE, || {
        lab.players[0].ping(lab.players[1].address(), PATIENCE)?;
        Ok((way(&lab, 0) == (name(&lab, 1), None)).then_some(()))
    })
    .unwrap();
}

/// Both players play by one relay; then each loses another one of the two, at once.
#[test]
fn play_moves_to_two_relays_when_no_common_one_is_left() {
    let mut lab = Deployment::start(&Plan::behind(NatKind::PortRestrictedCone, 2)).unwrap();
    lab.form_party("apart").unwrap();
    for round in 0..rounds(2, 40) {
        eventually("all four leases", PATIENCE, || {
            let mut held = true;
            for (player, relay) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                held &= lab.players[player].has_lease_at(lab.relays[relay].name())?;
            }
            Ok(held.then_some(()))
        })
        .unwrap();
        lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
        let play = BothWays::start(&lab.players[0], &lab.players[1]).unwrap();
        assert_eq!(way(&lab, 0).1, None, "round {round}");
        let struck = Instant::now();
        cut_off_from_each_other(&lab);
        let gap = play.longest_gap_after(struck).unwrap();
        println!("round {round}: longest gap {gap:?}");
        assert!(gap <= PROMISED, "round {round}: {gap:?} without traffic");
        assert_eq!(way(&lab, 0), (name(&lab, 0), Some(name(&lab, 1))), "round {round}");
        lab.players.iter().for_each(|player| player.host().heal().unwrap());
    }
}
