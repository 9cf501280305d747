//! Where io_uring is refused the relay runs all the same.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::time::Duration;

use lanrage_scenarios::{Backend, Deployment, Plan, RelayPlan};

const PATIENCE: Duration = Duration::from_secs(20);

/// A party forms, pings and survives the death of one relay, on relays of this plan.
fn plays_on(relay: RelayPlan, backend: &str) {
    let plan = Plan { relays: vec![relay; 2], ..Plan::with_players(3) };
    let mut lab = Deployment::start(&plan).unwrap();
    for relay in &lab.relays {
        let in_use = relay.metric("lanrage_relay_io_backend", backend).unwrap();
        assert_eq!(in_use, 1.0, "{} does not run on {backend}", relay.name());
    }
    lab.form_party("backends").unwrap();
    for from in &lab.players {
        for to in &lab.players {
            from.ping(to.address(), PATIENCE).unwrap();
        }
    }
    let used = lab.relay_in_use(0).unwrap();
    lab.relays[used].kill().unwrap();
    lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
}

#[test]
fn io_uring_serves_a_party() {
    plays_on(RelayPlan { backend: Backend::Uring, ..RelayPlan::default() }, "io_uring");
}

#[test]
fn recvmmsg_serves_a_party() {
    plays_on(RelayPlan { backend: Backend::Mmsg, ..RelayPlan::default() }, "recvmmsg");
}

#[test]
fn a_seccomp_profile_that_answers_eperm_leaves_recvmmsg() {
    plays_on(RelayPlan { refuse_io_uring: Some("EPERM"), ..RelayPlan::default() }, "recvmmsg");
}

#[test]
fn a_seccomp_profile_that_answers_enosys_leaves_recvmmsg() {
    plays_on(RelayPlan { refuse_io_uring: Some("ENOSYS"), ..RelayPlan::default() }, "recvmmsg");
}
