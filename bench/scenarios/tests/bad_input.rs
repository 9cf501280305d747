//! A bad invite or a bad control service is named at once, and costs no use of a good invite.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::thread::sleep;
use std::time::{Duration, Instant};

use lanrage_lab::{LinkSpec, NatKind, Traffic};
use lanrage_proto::party::{Invite, InviteKey, ServerAddress};
use lanrage_scenarios::{Control, Deployment, Plan, Player, exit};
use zeroize::Zeroizing;

const AT_ONCE: Duration = Duration::from_secs(2);
/// A control service that does not answer is given up after 10 s, at most four times over.
const UNREACHABLE_PATIENCE: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(20);

fn start(players: usize) -> Deployment {
    Deployment::start(&Plan::behind(NatKind::PortRestrictedCone, players)).unwrap()
}

fn create(lab: &mut Deployment) {
    let server = lab.control.server().to_owned();
    lab.players[0].create_party("friday", &server).unwrap();
}

/// Joining fails with `code` and `text` within `patience`, and the daemon lives on without a party.
#[track_caller]
fn refused(player: &Player, invite: &str, code: i32, text: &str, patience: Duration) {
    let started = Instant::now();
    let answer = player.try_join(invite).unwrap();
    let took = started.elapsed();
    answer.expect_failure(code, text);
    assert!(took < patience, "{took:?} until {answer:?}");
    let parties = player.run(&["party", "list", "--json"]).unwrap();
    assert_eq!((parties.code, parties.stdout.trim()), (0, r#"{"parties":[]}"#), "{parties:?}");
}

#[test]
fn a_malformed_invite_is_5_and_says_how_one_looks() {
    let mut lab = start(2);
    create(&mut lab);
    let good = lab.players[0].invite(1).unwrap();
    lab.players[0].stop_daemon().unwrap();
    let (place, fragment) = good.split_once("/#").unwrap();
    let typo = |at: usize| {
        let mut characters: Vec<char> = fragment.chars().collect();
        characters[at] = if characters[at] == 'A' { 'B' } else { 'A' };
        format!("{place}/#{}", characters.into_iter().collect::<String>())
    };
    let rest = good.strip_prefix("lanrage://").unwrap();
    for (bad, text) in [
        (typo(0), "copy it whole"),
        (typo(fragment.len() / 2), "copy it whole"),
        (good[..good.len() - 1].to_owned(), "copy it whole"),
        (format!("{good}x"), "copy it whole"),
        (format!("{place}/#"), "copy it whole"),
        (place.to_owned(), "looks like lanrage://host/#"),
        (format!("https://{rest}"), "looks like lanrage://host/#"),
        (format!("lanrage-server://{rest}"), "looks like lanrage://host/#"),
        (format!("lanrage://no such host/#{fragment}"), "names no usable host"),
        (String::new(), "looks like lanrage://host/#"),
    ] {
        refused(&lab.players[1], &bad, exit::INVITE, text, AT_ONCE);
    }
    lab.players[1].join(&good).unwrap();
}

#[test]
fn an_invite_that_no_longer_holds_is_5_and_says_why() {
    let mut lab = start(4);
    create(&mut lab);
    let short = ["party", "invite", "--expires", "1s", "--uses", "5", "--json"];
    let answer = lab.players[0].run(&short).unwrap();
    let reply: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    let expired = reply["invite"].as_str().unwrap();
    let single = lab.players[0].invite(1).unwrap();
    let good = lab.players[0].invite(1).unwrap();
    lab.players[1].join(&single).unwrap();
    sleep(Duration::from_secs(2));
    lab.players[0].stop_daemon().unwrap();
    lab.players[1].stop_daemon().unwrap();

    let newcomer = &lab.players[2];
    refused(newcomer, expired, exit::INVITE, "the invite has expired: ask for a new one", AT_ONCE);
    refused(newcomer, &single, exit::INVITE, "is used up: ask for a new one", AT_ONCE);
    lab.players[2].join(&good).unwrap();
    refused(&lab.players[3], &good, exit::INVITE, "is used up: ask for a new one", AT_ONCE);
}

#[test]
fn an_invite_with_a_wrong_key_or_server_is_refused_and_uses_nothing_up() {
    let mut lab = start(2);
    create(&mut lab);
    let other_host = lab.lab.host("control2", LinkSpec::direct()).unwrap();
    let other_dir = lab.lab.dir().join("second");
    let other = Control::start(other_host, &other_dir, Duration::from_secs(3600)).unwrap();
    let other_server: ServerAddress = other.server().parse().unwrap();
    let good = lab.players[0].invite(1).unwrap();
    lab.players[0].stop_daemon().unwrap();

    let invite: Invite = good.parse().unwrap();
    let key = || InviteKey(Zeroizing::new([7; 32]));
    for (bad, code, text) in [
        (Invite { key: key(), ..invite.clone() }, exit::INVITE, "does not know this invite"),
        (
            Invite { host: other_server.host, port: other_server.port, ..invite.clone() },
            exit::CONTROL,
            "root key is another",
        ),
        (Invite { root: other_server.root, ..invite }, exit::CONTROL, "root key is another"),
    ] {
        refused(&lab.players[1], &bad.to_string(), code, text, AT_ONCE);
    }
    lab.players[1].join(&good).unwrap();
}

#[test]
fn a_control_service_that_is_gone_is_6_and_the_party_plays_on() {
    let mut lab = start(3);
    create(&mut lab);
    let invite = lab.players[0].invite(2).unwrap();
    lab.players[1].join(&invite).unwrap();
    let address = lab.control.address();
    let plays = |lab: &Deployment| {
        lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
        lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
    };
    plays(&lab);

    lab.control.kill().unwrap();
    let gone = format!("cannot reach control at {}", lab.control.public());
    refused(&lab.players[2], &invite, exit::CONTROL, &gone, UNREACHABLE_PATIENCE);
    plays(&lab);
    let answer = lab.players[0].run(&["party", "invite"]).unwrap();
    answer.expect_failure(exit::CONTROL, &gone);

    lab.control.restart().unwrap();
    lab.players[2].host().isolate(Traffic::with(*address.ip())).unwrap();
    refused(&lab.players[2], &invite, exit::CONTROL, "control", UNREACHABLE_PATIENCE);
    lab.players[2].host().heal().unwrap();
    lab.players[2].join(&invite).unwrap();
    plays(&lab);
}

#[test]
fn a_control_service_with_another_root_key_is_6_and_the_party_plays_on() {
    let mut lab = start(3);
    create(&mut lab);
    let invite = lab.players[0].invite(2).unwrap();
    lab.players[1].join(&invite).unwrap();
    lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
    let old_server = lab.control.server().to_owned();

    lab.control.begin_anew().unwrap();
    assert_ne!(lab.control.server(), old_server);
    let text = "is not the server that was named (its root key is another one)";
    refused(&lab.players[2], &invite, exit::CONTROL, text, AT_ONCE);
    let create = ["party", "create", "other", "--server", &old_server];
    lab.players[2].run(&create).unwrap().expect_failure(exit::CONTROL, "root key is another one");
    lab.players[0].run(&["party", "invite"]).unwrap().expect_failure(exit::CONTROL, "root key");

    // The members keep their party, and a member's restart needs no control either.
    for player in [0, 1] {
        lab.players[player].stop_daemon().unwrap();
        lab.players[player].start_daemon().unwrap();
    }
    lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
    lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
}
