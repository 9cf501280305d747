//! What members send is theirs: relays and control see no plaintext, and no party sees another's.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::time::Duration;

use lanrage_lab::{NatKind, packets_containing};
use lanrage_scenarios::{Deployment, Plan, RelayPlan, send_marked};

const MARKER: &[u8] = b"a marker that no ciphertext holds";
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn relays_and_control_see_no_plaintext() {
    let mut lab = Deployment::start(&Plan::with_players(2)).unwrap();
    let captures: Vec<_> = lab
        .relays
        .iter()
        .map(|relay| relay.host().clone())
        .chain([lab.control.host().clone()])
        .map(|host| host.capture("privacy").unwrap())
        .collect();
    lab.form_party("privacy").unwrap();
    lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
    let received = send_marked(&lab.players[0], &lab.players[1], MARKER, 20).unwrap();
    assert!(received > 0, "the marker must arrive for the capture to mean anything");
    for capture in captures {
        let pcap = capture.stop().unwrap();
        assert!(pcap.metadata().unwrap().len() > 1000, "{} is empty", pcap.display());
        assert_eq!(packets_containing(&pcap, MARKER).unwrap(), 0, "{}", pcap.display());
    }
}

#[test]
fn two_parties_on_one_relay_never_meet() {
    let plan =
        Plan { relays: vec![RelayPlan::default()], ..Plan::behind(NatKind::PortRestrictedCone, 4) };
    let mut lab = Deployment::start(&plan).unwrap();
    let server = lab.control.server().to_owned();
    for (owner, joiner) in [(0, 1), (2, 3)] {
        lab.players[owner].create_party(&format!("party-{owner}"), &server).unwrap();
        let invite = lab.players[owner].invite(1).unwrap();
        lab.players[joiner].join(&invite).unwrap();
        let target = lab.players[owner].address();
        lab.players[joiner].ping(target, PATIENCE).unwrap();
    }
    let before: Vec<u64> = (0..4).map(|p| lab.players[p].bytes_received().unwrap()).collect();
    let received = send_marked(&lab.players[0], &lab.players[1], MARKER, 50).unwrap();
    assert!(received > 0, "the marker must arrive where it may");
    // The other party's members get their own liveness frames and tunnel upkeep, nothing more.
    for other in [2, 3] {
        let got = lab.players[other].bytes_received().unwrap() - before[other];
        assert_eq!(got, 0, "player {} got {got} bytes of another party", other + 1);
        assert_eq!(lab.players[other].dropped("not_for_us").unwrap(), 0);
        assert_eq!(lab.players[other].dropped("unknown_member").unwrap(), 0);
    }
}

#[test]
fn a_relay_that_misdelivers_achieves_nothing_and_is_counted() {
    let misdelivering = RelayPlan { program: "lanrage-relay-misdeliver", ..RelayPlan::default() };
    let plan = Plan { relays: vec![misdelivering], ..Plan::with_players(3) };
    let mut lab = Deployment::start(&plan).unwrap();
    lab.form_party("misdelivery").unwrap();
    for other in [1, 2] {
        lab.players[0].ping(lab.players[other].address(), PATIENCE).unwrap();
    }
    // The relay sends each frame to the receiver of the one before, too.
    let received = std::thread::scope(|scope| {
        let flows = [1, 2].map(|other| {
            let (from, to) = (&lab.players[0], &lab.players[other]);
            scope.spawn(move || send_marked(from, to, MARKER, 100).unwrap())
        });
        flows.map(|flow| flow.join().unwrap())
    });
    for (player, received) in lab.players[1..].iter().zip(received) {
        assert!(received > 90, "{received} of 100 arrive beside the misdelivered copies");
        let dropped = player.dropped("not_for_us").unwrap();
        assert!(dropped >= 50, "{} counts {dropped} misdelivered frames", player.name());
    }
}
