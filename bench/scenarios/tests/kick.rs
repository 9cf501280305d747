//! A kicked member is out at once and for good; the others play on.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::thread::sleep;
use std::time::{Duration, Instant};

use lanrage_lab::NatKind;
use lanrage_scenarios::{Deployment, Flow, Plan, eventually, exit};

const PROMISED: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(20);

fn start() -> Deployment {
    Deployment::start(&Plan::behind(NatKind::PortRestrictedCone, 4)).unwrap()
}

#[test]
fn a_kicked_member_gets_nothing_and_cannot_come_back() {
    let mut lab = start();
    let server = lab.control.server().to_owned();
    lab.players[0].create_party("kick", &server).unwrap();
    // The victim sees every invite: its own, one for the others, and one that stays open.
    let open = lab.players[0].invite(10).unwrap();
    for player in 1..4 {
        lab.players[player].join(&open).unwrap();
    }
    let spare = lab.players[0].invite(10).unwrap();
    let victim_address = lab.players[1].address();
    for player in [1, 2, 3] {
        lab.players[0].ping(lab.players[player].address(), PATIENCE).unwrap();
    }
    // One member is off line during the kick.
    lab.players[3].stop_daemon().unwrap();

    let to_victim = Flow::start(&lab.players[2], &lab.players[1], INTERVAL).unwrap();
    let among_others = Flow::start(&lab.players[2], &lab.players[0], INTERVAL).unwrap();
    sleep(Duration::from_secs(1));
    let kicked = Instant::now();
    let name = lab.players[1].member_name().to_owned();
    lab.players[0].kick(&name).unwrap();
    sleep(Duration::from_secs(3));
    let observed = Instant::now();
    let to_victim = to_victim.finish();
    assert!(to_victim.before(kicked) > 50, "the victim got packets before");
    assert_eq!(to_victim.after(kicked + PROMISED), 0, "the victim still gets packets");
    let gap = among_others.finish().longest_gap_between(kicked, observed);
    assert!(gap <= PROMISED, "{gap:?} without traffic among the others");

    for invite in [&open, &spare] {
        let answer = lab.players[1].try_join(invite).unwrap();
        assert_eq!(answer.code, exit::INVITE, "{answer:?}");
    }
    lab.players[1].forget_everything().unwrap();
    for invite in [&open, &spare] {
        let answer = lab.players[1].try_join(invite).unwrap();
        assert_eq!(answer.code, exit::INVITE, "a fresh device: {answer:?}");
    }

    // The member that was off line finds the new epoch, and all play on under it.
    lab.players[3].start_daemon().unwrap();
    let epoch = lab.players[0].status().unwrap()["epoch"].clone();
    for player in [2, 3] {
        lab.players[player].ping(lab.players[0].address(), PATIENCE).unwrap();
        assert_eq!(lab.players[player].status().unwrap()["epoch"], epoch);
    }
    lab.players[2].ping(lab.players[3].address(), PATIENCE).unwrap();
    assert!(lab.players[0].ping(victim_address, Duration::from_secs(1)).is_err());
}

/// The device saw its party gone from control's list, kept it for ever, and was told of a backup.
#[test]
fn regression_a_member_that_was_off_line_hears_by_whom_it_was_put_out() {
    let mut lab = Deployment::start(&Plan::behind(NatKind::PortRestrictedCone, 2)).unwrap();
    lab.form_party("kick").unwrap();
    lab.players[1].stop_daemon().unwrap();
    let name = lab.players[1].member_name().to_owned();
    lab.players[0].kick(&name).unwrap();
    lab.players[1].start_daemon().unwrap();
    eventually("the player to hear of its kick", PATIENCE, || {
        let status = lab.players[1].run(&["status"])?;
        Ok(status.stdout.contains("was put out of the party kick by member 1").then_some(()))
    })
    .unwrap();
    let parties = |lab: &Deployment| {
        let list = lab.players[1].run(&["party", "list", "--json"]).unwrap();
        let list: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
        list["parties"].as_array().unwrap().len()
    };
    let records = |lab: &Deployment| {
        std::fs::read_dir(lab.players[1].state_dir().join("parties")).unwrap().count()
    };
    assert_eq!(parties(&lab), 0);
    eventually("the record to go", PATIENCE, || Ok((records(&lab) == 0).then_some(()))).unwrap();
    let links = lab.players[1].host().command("ip").arg("link").output().unwrap();
    assert!(!String::from_utf8_lossy(&links.stdout).contains(lab.players[1].nic()));

    // A kick ends no membership that began after it.
    let invite = lab.players[0].invite(1).unwrap();
    lab.players[1].join(&invite).unwrap();
    lab.players[1].stop_daemon().unwrap();
    lab.players[1].start_daemon().unwrap();
    lab.players[1].wait_for_control(PATIENCE).unwrap();
    lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
    assert_eq!(parties(&lab), 1);
}

#[test]
fn an_old_ticket_binds_at_no_relay_that_restarts_while_control_is_down() {
    let mut lab = start();
    lab.form_party("kick").unwrap();
    lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
    // The victim is off line, keeps its ticket, and does not hear of the kick.
    lab.players[1].kill_daemon().unwrap();
    let name = lab.players[1].member_name().to_owned();
    lab.players[0].kick(&name).unwrap();
    sleep(PROMISED);
    lab.control.kill().unwrap();
    for relay in &mut lab.relays {
        relay.restart().unwrap();
    }
    lab.players[1].start_daemon().unwrap();
    for player in [2, 3] {
        lab.players[player].ping(lab.players[0].address(), PATIENCE).unwrap();
    }
    let refused = |lab: &Deployment| -> f64 {
        let of = |relay: &lanrage_scenarios::Relay| {
            relay.metric("lanrage_relay_binds_refused_total", "reason=\"revoked\"").unwrap()
        };
        lab.relays.iter().map(of).sum()
    };
    eventually(
        "the old ticket to be refused",
        PATIENCE,
        || Ok((refused(&lab) > 0.0).then_some(())),
    )
    .unwrap();
    assert!(lab.players[1].ping(lab.players[0].address(), Duration::from_secs(1)).is_err());
}
