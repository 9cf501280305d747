//! The program from outside: exit codes, messages, signals, the state directory.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::prepare;

fn relay(arguments: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanrage-relay"));
    command.args(arguments).env("LANRAGE_RELAY_STATE_DIR", dir);
    command.env("LANRAGE_RELAY_LISTEN", "127.0.0.1:0").env("LANRAGE_RELAY_METRICS_LISTEN", "off");
    command
}

fn fails(mut command: Command, code: i32, says: &str) {
    let Output { status, stderr, .. } = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(says), "{stderr:?} does not say {says:?}");
}

#[test]
fn wrong_settings_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relay.toml");
    std::fs::write(&file, "shards = 2\nshard = 3\n").unwrap();
    let path = file.to_str().unwrap();
    fails(relay(&["check-config", "--config", path], dir.path()), 2, "unknown field `shard`");
    fails(relay(&["check-config", "--shards", "0"], dir.path()), 2, "shards: 0");
    fails(relay(&["check-config", "--control", "h:x"], dir.path()), 2, "HOST:PORT");
    fails(relay(&["check-config", "--control", "h"], dir.path()), 2, "advertise:");
    fails(relay(&["check-config", "--config", "/nothing"], dir.path()), 2, "/nothing");
    fails(relay(&["run", "--enrolment-token", "x"], dir.path()), 2, "unexpected argument");
}

/// It was found wrong by `run` alone, and counted as any other failure.
#[test]
fn regression_a_log_filter_that_does_not_hold_is_wrong_configuration() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["check-config", "run"] {
        fails(relay(&[command, "--log", "info,=loud"], dir.path()), 2, "log: \"info,=loud\"");
    }
}

#[test]
fn flags_win_over_environment_over_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relay.toml");
    std::fs::write(&file, "shards = 3\nleases = 33\nname = \"file\"\n").unwrap();
    let token = format!("lanrage-relay-1.{}", "QUFB".repeat(21) + "QQ");
    let arguments =
        ["check-config", "--leases", "11", "--control", "h:1", "--advertise", "127.0.0.1:1"];
    let done = relay(&arguments, dir.path())
        .env("LANRAGE_RELAY_CONFIG", &file)
        .env("LANRAGE_RELAY_SHARDS", "2")
        .env("LANRAGE_RELAY_LEASES", "22")
        .env("LANRAGE_RELAY_ENROLMENT_TOKEN", &token)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for expected in ["shards = 2", "leases = 11", "name = \"file\"", "# not enrolled"] {
        assert!(said.contains(expected), "{said}");
    }
    assert!(!said.contains("QUFB"), "{said}");
}

/// It was found by `run` alone.
#[test]
fn regression_check_config_finds_that_a_relay_could_not_enrol() {
    let dir = tempfile::tempdir().unwrap();
    fails(relay(&["check-config"], dir.path()), 5, "lanrage-control relay token");
    prepare(dir.path());
    let done = relay(&["check-config"], dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.starts_with("# enrolled as relay 7 of pool 3\n"), "{said}");
    std::fs::write(dir.path().join("relay"), "{").unwrap();
    fails(relay(&["check-config"], dir.path()), 3, "corrupt");
}

#[test]
fn regression_each_commands_help_has_its_own_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let help = |command| {
        let done = relay(&[command, "--help"], dir.path()).output().unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    assert!(help("run").contains("0  stopped by SIGTERM"), "{}", help("run"));
    let check = help("check-config");
    assert!(check.contains("0  `run` can start") && !check.contains("SIGTERM"), "{check}");
}

/// The flag was named, which nobody had given.
#[test]
fn regression_a_wrong_environment_variable_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let with = |arguments: &[&str]| {
        let mut command = relay(arguments, dir.path());
        command.env("LANRAGE_RELAY_SHARDS", "abc");
        command
    };
    fails(with(&["run"]), 2, "'LANRAGE_RELAY_SHARDS'");
    fails(with(&["run", "--shards", "abc"]), 2, "'--shards");
    fails(with(&["run", "--shards=abc"]), 2, "'--shards");
}

/// A missing token file was blamed on `--config`, and half a token told what it should begin with,
/// which it did.
#[test]
fn regression_a_token_that_does_not_hold_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let missing = ["run", "--enrolment-token-file", "/nope"];
    fails(relay(&missing, dir.path()), 2, "correct --enrolment-token-file");
    let file = dir.path().join("token");
    std::fs::write(&file, "lanrage-relay-1.QUFB\n").unwrap();
    let short = ["run", "--enrolment-token-file", file.to_str().unwrap()];
    fails(relay(&short, dir.path()), 2, "copy it whole");
}

#[test]
fn a_relay_that_never_enrolled_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    fails(relay(&["run"], dir.path()), 5, "lanrage-control relay token");
}

#[test]
fn a_damaged_or_newer_state_directory_is_left_alone() {
    for (file, content, says) in [
        ("keys", "{", "corrupt"),
        ("keys", "lanrage-state 2 00\n{}", "update LANrage"),
        ("relay", "lanrage-state 1 00\n{}", "corrupt"),
        ("control", "lanrage-state 1 00\n{}", "corrupt"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let path = dir.path().join(file);
        std::fs::write(&path, content).unwrap();
        fails(relay(&["run"], dir.path()), 3, says);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    std::fs::remove_file(dir.path().join("keys")).unwrap();
    fails(relay(&["run"], dir.path()), 3, "missing");
}

#[test]
fn keys_are_private_and_two_relays_do_not_share_them() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir.path()), 0o700);
    assert_eq!(mode(&dir.path().join("keys")), 0o600);
    let _held = lanrage_relay::state::StateDir::open(dir.path()).unwrap();
    fails(relay(&["run"], dir.path()), 3, "in use by process");
}

#[test]
fn an_address_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _taken = UdpSocket::bind(taken).unwrap();
    fails(relay(&["run", "--listen", &taken.to_string()], dir.path()), 4, &taken.to_string());
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    fails(relay(&["run", "--metrics-listen", &address], dir.path()), 4, &address);
}

#[test]
fn logs_can_be_json() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let arguments = ["run", "--log-format", "json", "--metrics-listen", &address];
    let done = relay(&arguments, dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let first = said.lines().next().unwrap();
    assert!(first.starts_with('{') && first.contains("\"back end\""), "{said}");
}

#[test]
fn sigterm_stops_it_within_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let mut child = relay(&["run"], dir.path()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    let told = Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(2), "{:?}", told.elapsed());
    let mut log = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut log).unwrap();
    assert!(log.contains("serving") && log.contains("back end"), "{log}");
}
