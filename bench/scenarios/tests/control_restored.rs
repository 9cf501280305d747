//! A control service that was restored from an older backup costs nobody a party.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lanrage_lab::NatKind;
use lanrage_scenarios::{Control, Deployment, Plan, PlayerPlan, eventually, exit};

const PATIENCE: Duration = Duration::from_secs(40);

/// Copies control's directory while nobody writes into it.
fn back_up(control: &mut Control, name: &str) -> PathBuf {
    let copy = control.dir().with_file_name(name);
    control.stop().unwrap();
    copy_dir(control.dir(), &copy);
    control.restart().unwrap();
    copy
}

fn restore(control: &mut Control, copy: &Path) {
    control.stop().unwrap();
    std::fs::remove_dir_all(control.dir()).unwrap();
    copy_dir(copy, control.dir());
    control.restart().unwrap();
}

fn copy_dir(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// The second player has joined a party that the backup knows without it; control is that backup.
fn start() -> (Deployment, PathBuf) {
    let player = PlayerPlan::behind(NatKind::PortRestrictedCone);
    let mut lab = Deployment::start(&Plan { players: vec![player; 2], ..Plan::default() }).unwrap();
    let server = lab.control.server().to_owned();
    lab.players[0].create_party("restored", &server).unwrap();
    let older = back_up(&mut lab.control, "older");
    lab.players[0].wait_for_control(PATIENCE).unwrap();
    let invite = lab.players[0].invite(1).unwrap();
    lab.players[1].join(&invite).unwrap();
    lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
    let newest = back_up(&mut lab.control, "newest");
    restore(&mut lab.control, &older);
    wait_until_unlisted(&lab);
    (lab, newest)
}

fn wait_until_unlisted(lab: &Deployment) {
    eventually("the player to know that it is not listed", PATIENCE, || {
        let answer = lab.players[1].run(&["status", "--json"])?;
        let status: serde_json::Value = serde_json::from_str(&answer.stdout)?;
        Ok((status["party"].is_null() && status["problem"]["kind"] == "unlisted").then_some(()))
    })
    .unwrap();
}

fn is_listed(lab: &Deployment) -> bool {
    let answer = lab.players[1].run(&["party", "list", "--json"]).unwrap();
    let list: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    list["parties"][0]["listed"].as_bool().unwrap()
}

fn records(lab: &Deployment) -> usize {
    std::fs::read_dir(lab.players[1].state_dir().join("parties")).unwrap().count()
}

/// The membership's record went with its secrets, once control's snapshot lacked the party.
#[test]
fn regression_who_is_not_listed_keeps_the_party_and_plays_again_when_listed() {
    let (mut lab, newest) = start();
    assert!(!is_listed(&lab));
    let text = "it may have been restored from an older backup";
    for command in [
        &["up"][..],
        &["ping", "player1"],
        &["party", "members"],
        &["party", "invite"],
        &["party", "kick", "player1"],
        &["party", "switch", "restored"],
    ] {
        lab.players[1].run(command).unwrap().expect_failure(exit::REFUSED, text);
    }
    let status = lab.players[1].run(&["status"]).unwrap();
    for part in [text, "ask the server's operator", "`lanrage party leave` forgets it"] {
        let shown = status.stdout.to_lowercase();
        assert!(shown.contains(&part.to_lowercase()), "{status:?}");
    }
    let links = lab.players[1].host().command("ip").arg("link").output().unwrap();
    assert!(!String::from_utf8_lossy(&links.stdout).contains(lab.players[1].nic()));

    lab.players[1].stop_daemon().unwrap();
    lab.players[1].start_daemon().unwrap();
    wait_until_unlisted(&lab);
    assert_eq!(records(&lab), 1);

    restore(&mut lab.control, &newest);
    eventually("the LAN to come back", PATIENCE, || lab.players[1].status().map(Some)).unwrap();
    lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
    lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
    assert!(is_listed(&lab));
}

#[test]
fn who_is_not_listed_comes_back_by_an_invite_or_leaves() {
    let (mut lab, _) = start();
    lab.players[0].wait_for_control(PATIENCE).unwrap();
    let invite = lab.players[0].invite(1).unwrap();
    lab.players[1].join(&invite).unwrap();
    lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
    assert!(is_listed(&lab));

    let older = lab.control.dir().with_file_name("older");
    restore(&mut lab.control, &older);
    wait_until_unlisted(&lab);
    let left = lab.players[1].run(&["party", "leave"]).unwrap();
    assert_eq!(left.code, 0, "{left:?}");
    assert_eq!(records(&lab), 0);
    let status = lab.players[1].run(&["status"]).unwrap();
    assert!(status.stdout.contains("no party is active"), "{status:?}");
}
