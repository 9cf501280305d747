//! From `party join` to the first answered ping.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::time::{Duration, Instant};

use lanrage_lab::{Impairment, LinkSpec, NatKind};
use lanrage_scenarios::{Deployment, Plan, Player, PlayerPlan, rounds};

const PROMISED: Duration = Duration::from_secs(2);
const PING_PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn three_members_behind_different_nats_ping_within_two_seconds_of_joining() {
    let mut lab = Deployment::start(&Plan::default()).unwrap();
    let server = lab.control.server().to_owned();
    lab.players[0].create_party("friday", &server).unwrap();
    for joiner in 1..lab.players.len() {
        let invite = lab.players[0].invite(1).unwrap();
        let took = join_and_ping(&mut lab.players, joiner, &invite);
        assert!(took <= PROMISED, "player {} needed {took:?}", joiner + 1);
    }
    for from in &lab.players {
        for to in &lab.players {
            from.ping(to.address(), PING_PATIENCE).unwrap();
        }
    }
}

/// 95 of 100 joins, in the short form of a binomial test: with 20 rounds, 17 good ones.
#[test]
fn joins_over_a_link_that_loses_a_fifth_take_two_seconds_at_most() {
    let lossy = Impairment { loss: 0.2, delay: Duration::from_millis(10), ..Impairment::NONE };
    let rounds = rounds(20, 100);
    let bad_allowed = if rounds == 100 { 5 } else { 3 };
    let plan = Plan {
        players: vec![
            PlayerPlan::behind(NatKind::PortRestrictedCone),
            PlayerPlan::on(NatKind::PortRestrictedCone, LinkSpec::shaped(lossy)),
        ],
        ..Plan::default()
    };
    let mut lab = Deployment::start(&plan).unwrap();
    let server = lab.control.server().to_owned();
    lab.players[0].create_party("lossy", &server).unwrap();
    let mut slow = Vec::new();
    for _ in 0..rounds {
        let invite = lab.players[0].invite(1).unwrap();
        let took = join_and_ping(&mut lab.players, 1, &invite);
        if took > PROMISED {
            slow.push(took);
        }
        // A device that nobody knows joins each time, and the party does not grow.
        assert_eq!(lab.players[1].run(&["party", "leave"]).unwrap().code, 0);
        lab.players[1].forget_everything().unwrap();
    }
    assert!(slow.len() <= bad_allowed, "{} of {rounds} joins were slow: {slow:?}", slow.len());
}

fn join_and_ping(players: &mut [Player], joiner: usize, invite: &str) -> Duration {
    let target = players[0].address();
    let started = Instant::now();
    players[joiner].join(invite).unwrap();
    players[joiner].ping(target, PING_PATIENCE).unwrap();
    started.elapsed()
}
