//! A state directory that is damaged or newer stops a program, which names the file and leaves it.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lanrage_lab::NatKind;
use lanrage_scenarios::{Answer, Deployment, Plan, exit, run_to_end};

const PATIENCE: Duration = Duration::from_secs(20);
/// What `lanrage-relay --help` and `lanrage-control --help` document.
const STATE: i32 = 3;

fn start() -> Deployment {
    let mut lab = Deployment::start(&Plan::behind(NatKind::PortRestrictedCone, 2)).unwrap();
    lab.form_party("state").unwrap();
    lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
    lab
}

fn flip_last_byte(whole: &[u8]) -> Vec<u8> {
    let mut bad = whole.to_owned();
    *bad.last_mut().unwrap() ^= 1;
    bad
}

/// A record as the next format's program would write it.
fn raise_format(whole: &[u8]) -> Vec<u8> {
    const HEADER: &[u8] = b"lanrage-state 1 ";
    let body = whole.strip_prefix(HEADER).unwrap();
    [b"lanrage-state 2 ", body].concat()
}

/// Puts `bad` in the file's place, starts the program, and puts the file back as it was.
#[track_caller]
fn refuses(path: &Path, bad: &[u8], text: &str, code: i32, start: impl Fn() -> Answer) {
    let whole = fs::read(path).unwrap();
    fs::write(path, bad).unwrap();
    let answer = start();
    answer.expect_failure(code, text);
    answer.expect_failure(code, &path.display().to_string());
    assert_eq!(fs::read(path).unwrap(), bad, "{} was overwritten", path.display());
    fs::write(path, whole).unwrap();
}

/// Both kinds of damage to each of a program's records.
fn refuses_records(paths: &[PathBuf], code: i32, start: impl Fn() -> Answer) {
    for path in paths {
        let whole = fs::read(path).unwrap();
        refuses(path, &flip_last_byte(&whole), "restore it from a backup", code, &start);
        refuses(path, &whole[..whole.len() / 2], "restore it from a backup", code, &start);
        refuses(path, b"", "restore it from a backup", code, &start);
        let newer = "has format 2, this program knows format 1: update LANrage";
        refuses(path, &raise_format(&whole), newer, code, &start);
    }
}

#[test]
fn the_daemon_ends_with_8_and_plays_again_once_the_file_is_back() {
    let mut lab = start();
    let player = &mut lab.players[1];
    player.stop_daemon().unwrap();
    let parties = fs::read_dir(player.state_dir().join("parties")).unwrap();
    let mut records: Vec<_> = parties.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(records.len(), 1);
    records.push(player.state_dir().join("device"));
    refuses_records(&records, exit::STATE, || {
        run_to_end(player.host(), player.daemon_command().unwrap()).unwrap()
    });
    player.start_daemon().unwrap();
    lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
}

#[test]
fn the_relay_ends_with_3_and_serves_again_once_the_file_is_back() {
    let mut lab = start();
    let relay = &mut lab.relays[0];
    relay.kill().unwrap();
    let records = ["keys", "relay", "control"].map(|name| relay.state_dir().join(name));
    refuses_records(&records, STATE, || {
        run_to_end(relay.host(), relay.command().unwrap()).unwrap()
    });
    relay.restart().unwrap();
    lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
}

#[test]
fn control_ends_with_3_and_serves_again_once_the_file_is_back() {
    /// Where a database's header has `PRAGMA user_version` (https://sqlite.org/fileformat.html).
    const USER_VERSION: std::ops::Range<usize> = 60..64;
    let mut lab = start();
    let control = &mut lab.control;
    control.stop().unwrap();
    let run = || run_to_end(control.host(), control.run_command().unwrap()).unwrap();

    let database = control.dir().join("control.db");
    let whole = fs::read(&database).unwrap();
    let backup = "restore the file from a backup";
    refuses(&database, &[0x5a; 16 << 10], backup, STATE, run);
    let mut damaged = whole.clone();
    damaged[4096..].fill(0x5a);
    refuses(&database, &damaged, backup, STATE, run);
    let mut newer = whole;
    newer[USER_VERSION].copy_from_slice(&99_u32.to_be_bytes());
    refuses(&database, &newer, "run a newer lanrage-control", STATE, run);

    let root = control.dir().join("root.key");
    let whole = fs::read(&root).unwrap();
    refuses(&root, &whole[..whole.len() / 2], "restore it", STATE, run);
    refuses(&root, b"", "restore it", STATE, run);

    control.restart().unwrap();
    lab.players[0].wait_for_control(PATIENCE).unwrap();
    let answer = lab.players[0].run(&["party", "invite"]).unwrap();
    assert_eq!(answer.code, 0, "{answer:?}");
}
