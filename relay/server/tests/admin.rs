//! `lanrage-relay ctl` and the socket it speaks to.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use common::{Client, Relay, eventually, prepare};
use lanrage_proto::frame::bind::Refusal;
use lanrage_proto::frame::control::{Message, Sealed};
use lanrage_proto::ids::{Destination, Member, RelayId};
use lanrage_relay::Settings;
use serde_json::Value;

const SESSION: &str = "0000000000000abc";

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

/// Each line's object.
fn lines(dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = ctl(dir, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
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
    assert!(text.contains("0 of 1024\n"), "{text}");
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

#[test]
fn lists_sessions_leases_and_shards() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let relay = Relay::start_with(dir.path(), Settings::default());
    assert_eq!(lines(dir.path(), &["leases"]), [Value::Null; 0]);
    let mut clients: Vec<_> = (1..=3).map(|member| Client::new(relay.ipv4(), member)).collect();
    let leases: Vec<_> = clients.iter_mut().map(Client::bind).collect();
    for (client, lease) in clients.iter().zip(&leases).take(2) {
        assert!(client.probe(lease));
    }
    let nobody = Destination::One(Member::new(200).unwrap());
    clients[0].ask(&clients[0].frame(&leases[0], nobody, b"nobody")).unwrap();
    eventually("the leases to be active", || json(dir.path(), &["status"])["leases"] == 2);

    let rows = lines(dir.path(), &["leases", "--session", SESSION]);
    let by_member: Vec<_> = rows.iter().map(|row| row["member"].as_u64().unwrap()).collect();
    assert_eq!(by_member, [1, 2, 3]);
    assert_eq!(rows[0]["active"], true);
    assert_eq!(rows[2]["active"], false);
    assert_eq!(
        (&rows[0]["packets"], &rows[0]["bytes"], &rows[0]["dropped"]),
        (&2.into(), &43.into(), &1.into())
    );
    assert_eq!(rows[0]["local"], relay.ipv4().to_string());
    assert_eq!(rows[0]["address"], clients[0].socket.local_addr().unwrap().to_string());
    assert_eq!(lines(dir.path(), &["leases"]).len(), 3);
    assert_eq!(lines(dir.path(), &["leases", "--limit", "2"]).len(), 2);
    assert!(lines(dir.path(), &["leases", "--session", "00000000000000ff"]).is_empty());

    let rows = lines(dir.path(), &["sessions"]);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["session"], SESSION);
    assert_eq!((&rows[0]["leases"], &rows[0]["pending"]), (&2.into(), &1.into()));
    assert_eq!((&rows[0]["packets"], &rows[0]["dropped"]), (&3.into(), &1.into()));

    let rows = lines(dir.path(), &["shard"]);
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row["last_turn_ms"].as_u64().unwrap() < 2_000));
    assert_eq!(lines(dir.path(), &["shard", "1"])[0]["shard"], "1");
    assert_eq!(fails(dir.path(), &["shard", "2"]).0, 5);
    for list in ["leases", "sessions", "shard"] {
        assert!(ctl(dir.path(), &[list]).status.success(), "{list}, as a table");
    }
    relay.stop();
}

#[test]
fn a_ban_ends_leases_at_once_and_outlives_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let relay = Relay::start_with(dir.path(), Settings::default());
    let mut clients: Vec<_> = (1..=2).map(|member| Client::new(relay.ipv4(), member)).collect();
    let leases: Vec<_> = clients.iter_mut().map(Client::bind).collect();
    assert!(clients.iter().zip(&leases).all(|(client, lease)| client.probe(lease)));
    let key = lines(dir.path(), &["leases"])
        .into_iter()
        .find(|row| row["member"] == 1)
        .and_then(|row| row["key"].as_str().map(str::to_owned))
        .unwrap();
    assert_eq!(json(dir.path(), &["ban", "key", &key])["ended"], 1);
    assert_eq!(lines(dir.path(), &["leases"]).len(), 1);
    assert_eq!(clients[0].try_bind().unwrap_err(), Refusal::Banned);
    assert!(clients[1].probe(&leases[1]));
    let (code, text) = fails(dir.path(), &["ban", "key", &key]);
    assert_eq!((code, text.contains("banned already")), (5, true), "{text}");
    // A resumption ticket from before the ban does not help.
    let (resume, cookie) = clients[0].resume(&leases[0]);
    let answer = clients[0].ask(&resume).unwrap();
    assert_eq!(common::resumed(&answer, &leases[0], cookie).unwrap_err(), Refusal::Banned);
    relay.stop();

    let relay = Relay::start_with(dir.path(), Settings::default());
    assert_eq!(lines(dir.path(), &["bans"])[0]["key"], key);
    let mut client = Client::new(relay.ipv4(), 1);
    assert_eq!(client.try_bind().unwrap_err(), Refusal::Banned);
    json(dir.path(), &["unban", "key", &key]);
    assert_eq!(fails(dir.path(), &["unban", "key", &key]).0, 5);
    // Stamps grow: the clients before had their own count.
    let lease = client.bind();
    assert!(client.probe(&lease));
    assert_eq!(json(dir.path(), &["ban", "session", SESSION])["ended"], 1);
    assert_eq!(client.try_bind().unwrap_err(), Refusal::Banned);
    relay.stop();
}

#[test]
fn a_drain_refuses_newcomers_tells_the_others_and_ends_the_relay_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let relay = Relay::start_with(dir.path(), Settings::default());
    assert_eq!(fails(dir.path(), &["undrain"]).0, 5);
    let mut client = Client::new(relay.ipv4(), 1);
    let lease = client.bind();
    assert!(client.probe(&lease));
    eventually("an active lease", || json(dir.path(), &["status"])["leases"] == 1);

    json(dir.path(), &["drain", "--deadline", "60", "--next", "9"]);
    let told = client.receive().unwrap();
    let told = Sealed::decode(&told).unwrap().open(&lease.key_to_client).unwrap();
    assert_eq!(told, Message::Moving { next: RelayId(9), deadline_s: 60 });
    assert_eq!(Client::new(relay.ipv4(), 2).try_bind().unwrap_err(), Refusal::Draining);
    assert!(client.probe(&lease), "served on");
    eventually("readiness to end", || relay.get("/readyz").ends_with("draining\n"));
    assert_eq!(json(dir.path(), &["status"])["draining"]["told"], 1);

    json(dir.path(), &["undrain"]);
    eventually("readiness", || relay.get("/readyz").ends_with("ready\n"));
    Client::new(relay.ipv4(), 2).bind();

    json(dir.path(), &["drain", "--exit"]);
    client.socket.send(&Message::Release.seal(&lease.key_to_relay, lease.handle, 1)).unwrap();
    // The other lease was never used, and ends after 3 s.
    relay.wait();
    assert!(!dir.path().join("admin.sock").exists());
}

#[test]
fn segmentation_offload_is_switched_live_and_a_log_that_is_not_there_is_not() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let relay = Relay::start_with(dir.path(), Settings::default());
    assert_eq!(json(dir.path(), &["gso"])["mode"], "auto");
    assert_eq!(json(dir.path(), &["gso", "off"])["mode"], "off");
    assert_eq!(json(dir.path(), &["status"])["gso"], "off");
    assert_eq!(fails(dir.path(), &["gso", "perhaps"]).0, 2);
    // In this process nobody has begun to log.
    assert_eq!(fails(dir.path(), &["log", "debug"]).0, 5);
    relay.stop();
}

#[test]
fn caps_hold_at_once_and_are_lifted() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let relay = Relay::start_with(dir.path(), Settings::default());
    let mut client = Client::new(relay.ipv4(), 1);
    let lease = client.bind();
    assert!(client.probe(&lease));
    let dropped = || lines(dir.path(), &["leases"])[0]["dropped"].as_u64().unwrap();
    assert_eq!(dropped(), 0);
    json(dir.path(), &["cap", SESSION, "--member", "1", "--packets", "1"]);
    json(dir.path(), &["cap", SESSION, "--bytes", "1000000"]);
    assert_eq!(lines(dir.path(), &["caps"]).len(), 2);
    let frame = client.frame(&lease, Destination::One(client.member), b"again");
    (0..20).for_each(|_| assert!(client.socket.send(&frame).is_ok()));
    eventually("frames beyond the cap to be dropped", || dropped() > 0);
    json(dir.path(), &["uncap", SESSION, "--member", "1"]);
    assert_eq!(fails(dir.path(), &["uncap", SESSION, "--member", "1"]).0, 5);
    assert_eq!(lines(dir.path(), &["caps"])[0]["bytes"], 1_000_000);
    assert_eq!(fails(dir.path(), &["cap", SESSION]).0, 2, "no figure");
    relay.stop();
}
