//! `lanrage-relay ctl` and the socket it speaks to.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use common::{Relay, prepare};
use lanrage_relay::Settings;
use serde_json::Value;

/// The command line against the relay of a state directory.
fn ctl(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lanrage-relay"))
        .arg("ctl")
        .args(arguments)
        .env("LANRAGE_RELAY_ADMIN_SOCKET", dir.join("admin.sock"))
        .output()
        .unwrap()
}

fn json(dir: &Path, arguments: &[&str]) -> Value {
    let output = ctl(dir, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The exit code and what was said.
fn fails(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let output = ctl(dir, arguments);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn status_for_people_and_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let relay = Relay::start_with(dir.path(), Settings::default());
    let status = json(dir.path(), &["status"]);
    assert_eq!(status["relay"], 7);
    assert_eq!(status["pool"], 3);
    assert_eq!(status["leases_capacity"], 1024);
    assert_eq!(status["not_ready"], Value::Null);
    let output = ctl(dir.path(), &["status"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("leases     0 of 1024\n"), "{text}");
    relay.stop();
    assert!(!dir.path().join("admin.sock").exists());
}

#[test]
fn says_why_it_cannot_ask() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = fails(dir.path(), &["status"]);
    assert_eq!(code, 3);
    assert!(text.contains("no relay listens at") && text.contains("--socket"), "{text}");
    drop(UnixListener::bind(dir.path().join("admin.sock")).unwrap());
    assert_eq!(fails(dir.path(), &["status"]).0, 3, "a socket that nobody listens at");
    assert_eq!(fails(dir.path(), &["dance"]).0, 2);
}

#[test]
fn there_may_be_no_socket() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let settings = Settings { admin_socket: Some("off".into()), ..Settings::default() };
    let relay = Relay::start_with(dir.path(), settings);
    assert!(!dir.path().join("admin.sock").exists());
    relay.stop();
}
