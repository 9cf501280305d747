//! A clock that is hours off does not keep a player out, and a relay with such a clock is passed by.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use lanrage_lab::NatKind;
use lanrage_scenarios::{Deployment, Plan, eventually};

/// From `party join` to the first answered ping, the clock being wrong.
const PROMISED: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(20);

fn start() -> Deployment {
    Deployment::start(&Plan::behind(NatKind::PortRestrictedCone, 2)).unwrap()
}

/// Runs a program with a wall clock that is `hours` off. The `faketime` command would stand between
/// the program and its signals; ld.so(8) puts the library's directory for `$LIB`.
fn with_clock(hours: i32) -> [String; 4] {
    [
        "env".to_owned(),
        "LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        format!("FAKETIME={hours:+}h"),
    ]
}

/// The hour `hours` from now, as logs show it.
fn hour(hours: i32) -> String {
    let (now, format) = (format!("--date={hours:+} hours"), "+%Y-%m-%dT%H:");
    let output = Command::new("date").args(["--utc", &now, format]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_player_whose_clock_is_hours_off_joins_and_plays() {
    let mut lab = start();
    let server = lab.control.server().to_owned();
    lab.players[0].create_party("clock", &server).unwrap();
    let target = lab.players[0].address();
    for hours in [5, -5] {
        let invite = lab.players[0].invite(1).unwrap();
        lab.players[1].run_under(&with_clock(hours).each_ref().map(String::as_str));
        let earliest = hour(hours);
        lab.players[1].forget_everything().unwrap();
        let log = fs::read_to_string(lab.players[1].daemon().log()).unwrap();
        let wrong = [earliest, hour(hours)];
        assert!(wrong.iter().any(|hour| log.contains(hour)), "the clock is right: {log}");

        let started = Instant::now();
        lab.players[1].join(&invite).unwrap();
        lab.players[1].ping(target, PATIENCE).unwrap();
        let took = started.elapsed();
        assert!(took <= PROMISED, "{took:?} with a clock {hours} h off");

        // The next run has the kept ticket and the wrong clock, and no word from control yet.
        lab.players[1].stop_daemon().unwrap();
        lab.players[1].start_daemon().unwrap();
        lab.players[1].ping(target, PROMISED).unwrap();
        assert_eq!(lab.players[1].run(&["party", "leave"]).unwrap().code, 0);
    }
}

/// One relay of two gives no lease and says why; the other carries play.
fn passed_by(hours: i32, refusal: &str) {
    let mut lab = start();
    let relay = &mut lab.relays[0];
    relay.run_under(&with_clock(hours).each_ref().map(String::as_str));
    relay.restart().unwrap();
    let wrong = relay.name().to_owned();
    lab.form_party("clock").unwrap();

    for (from, to) in [(0, 1), (1, 0)] {
        lab.players[from].ping(lab.players[to].address(), PATIENCE).unwrap();
        assert_eq!(lab.relay_in_use(from).unwrap(), 1);
    }
    eventually("the refusal in the status", PATIENCE, || {
        let status = lab.players[0].status()?;
        let mut relays = status["relays"].as_array().into_iter().flatten();
        Ok(relays.find(|relay| relay["name"] == *wrong && relay["refusal"] == refusal).map(|_| ()))
    })
    .unwrap();
    assert!(!lab.players[0].has_lease_at(&wrong).unwrap());
    let label = format!("reason=\"{refusal}\"");
    assert!(lab.relays[0].metric("lanrage_relay_binds_refused_total", &label).unwrap() > 0.0);
}

#[test]
fn a_relay_whose_clock_is_ahead_is_passed_by() {
    passed_by(5, "expired");
}

#[test]
fn a_relay_whose_clock_is_behind_is_passed_by() {
    passed_by(-5, "not_yet_valid");
}

#[test]
fn a_relay_says_that_its_clock_differs_from_controls() {
    let mut lab = start();
    let relay = &mut lab.relays[0];
    relay.run_under(&with_clock(5).each_ref().map(String::as_str));
    relay.restart().unwrap();
    eventually("the relay to say so", PATIENCE, || {
        let log = fs::read_to_string(relay.process().log())?;
        Ok(log.contains("clock differs from control's").then_some(()))
    })
    .unwrap();
}
