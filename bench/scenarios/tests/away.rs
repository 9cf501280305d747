//! What a player is told of others that are gone, of invites it has used, and of a party that
//! could not be entered.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::time::{Duration, Instant};

use lanrage_lab::{Host, NatKind};
use lanrage_scenarios::{Control, Deployment, Plan, Player, binary, eventually, exit};

const PATIENCE: Duration = Duration::from_secs(20);

fn start(players: usize) -> Deployment {
    Deployment::start(&Plan::behind(NatKind::PortRestrictedCone, players)).unwrap()
}

fn ip(host: &Host, arguments: &str) {
    let output = host.command("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

fn connection(player: &Player, member: usize) -> String {
    player.status().unwrap()["members"][member]["connection"].as_str().unwrap().to_owned()
}

fn parties(control: &Control) -> String {
    let program = binary("lanrage-control").unwrap();
    let mut command = control.host().command(program.to_str().unwrap());
    let output = command.args(["party", "list", "--dir"]).arg(control.dir()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn who_has_gone_is_shown_so_and_pings_say_so_at_once() {
    let mut lab = start(2);
    lab.form_party("friday").unwrap();
    lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
    assert_eq!(connection(&lab.players[0], 1), "connected");

    let server = lab.control.server().to_owned();
    lab.players[1].create_party("sunday", &server).unwrap();
    eventually("the member in another party to be silent", PATIENCE, || {
        Ok((connection(&lab.players[0], 1) == "silent").then_some(()))
    })
    .unwrap();
    assert_eq!(lab.players[1].run(&["party", "switch", "friday"]).unwrap().code, 0);
    eventually("the member to be back", PATIENCE, || {
        Ok((connection(&lab.players[0], 1) == "connected").then_some(()))
    })
    .unwrap();

    lab.players[1].stop_daemon().unwrap();
    eventually("the member to be off line", PATIENCE, || {
        let status = lab.players[0].status()?;
        Ok((status["members"][1]["online"] == false).then_some(()))
    })
    .unwrap();
    let asked = Instant::now();
    let answer = lab.players[0].run(&["ping", "player2"]).unwrap();
    answer.expect_failure(1, "player2 is off line");
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

/// Each try left a party at control, and took the active one's place.
#[test]
fn regression_party_that_cannot_be_entered_is_unmade_and_the_one_before_is_up_again() {
    let mut lab = start(1);
    let server = lab.control.server().to_owned();
    lab.players[0].create_party("friday", &server).unwrap();
    let host = lab.players[0].host().clone();
    // It leads away what the card would get, which only shows when there is a card.
    ip(&host, "route add 10.0.0.0/8 dev eth0 table 52");
    ip(&host, "rule add pref 5270 lookup 52");
    let create = ["party", "create", "sunday", "--server", &server];
    lab.players[0].run(&create).unwrap().expect_failure(exit::OVERLAP, "10.0.0.0/8 on eth0");
    assert!(!parties(&lab.control).contains("sunday"), "{}", parties(&lab.control));
    ip(&host, "rule del pref 5270");
    let listed = lab.players[0].run(&["party", "list"]).unwrap().stdout;
    assert!(listed.contains("friday") && !listed.contains("sunday"), "{listed}");
    assert_eq!(lab.players[0].run(&["up"]).unwrap().code, 0);
    assert_eq!(lab.players[0].status().unwrap()["name"], "friday");
    assert_eq!(lab.players[0].run(&create).unwrap().code, 0);
}

#[test]
fn invite_that_one_joined_by_says_that_one_is_in() {
    let mut lab = start(2);
    let server = lab.control.server().to_owned();
    lab.players[0].create_party("friday", &server).unwrap();
    let invite = lab.players[0].invite(1).unwrap();
    lab.players[1].join(&invite).unwrap();
    lab.players[1].stop_daemon().unwrap();
    lab.players[1].start_daemon().unwrap();
    let answer = lab.players[1].try_join(&format!("\"{invite}\"")).unwrap();
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(answer.stdout.contains("you were in it already"), "{answer:?}");
    lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
}
