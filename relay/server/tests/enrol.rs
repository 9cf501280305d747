//! A relay and a real control: enrolled, removed, brought back, with a disk that takes nothing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser as _;
use common::{Client, Relay};
use lanrage_control::{Cli, execute};
use lanrage_relay::Settings;
use lanrage_relay::state::enrolment_in;
use tokio::runtime::Runtime;

/// A control service in this process, until dropped.
struct Control {
    dir: tempfile::TempDir,
    address: String,
    runtime: Runtime,
}

impl Control {
    /// A service that has its keys and never runs.
    fn idle() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let control = Self {
            dir: tempfile::tempdir().unwrap(),
            address: free.to_string(),
            runtime: runtime.unwrap(),
        };
        control.command(&["init"]);
        control
    }

    fn start() -> Self {
        let control = Self::idle();
        let options = ["run", "--listen", &control.address, "--metrics-listen", ""];
        control.runtime.spawn(execute(control.cli(&options)));
        common::eventually("control to listen", || {
            std::net::TcpStream::connect(&control.address).is_ok()
        });
        control
    }

    fn cli(&self, arguments: &[&str]) -> Cli {
        let dir = self.dir.path().to_str().unwrap();
        let line = [&["lanrage-control"], arguments, &["--dir", dir]].concat();
        Cli::try_parse_from(line).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> String {
        self.runtime.block_on(execute(self.cli(arguments))).unwrap()
    }

    /// A file with a fresh token, named by `at`.
    fn token(&self, at: &str) -> PathBuf {
        let path = self.dir.path().join(at);
        std::fs::write(&path, self.command(&["relay", "token"])).unwrap();
        path
    }

    fn settings(&self, token: &Path) -> Settings {
        Settings {
            control: Some(self.address.clone()),
            advertise: Some(vec!["127.0.0.1:51820".parse().unwrap()]),
            enrolment_token_file: Some(token.to_owned()),
            shards: Some(1),
            ..Settings::default()
        }
    }
}

fn id(dir: &Path) -> String {
    enrolment_in(dir).unwrap().unwrap().relay.0.to_string()
}

fn not_ready(relay: &Relay, why: &str) {
    common::eventually(why, || {
        let answer = relay.get("/readyz");
        answer.starts_with("HTTP/1.1 503") && answer.contains(why)
    });
}

/// A removed relay said `ready`, and took no fresh token: only the loss of its state directory
/// helped, which nothing said.
#[test]
fn regression_a_removed_relay_is_not_ready_and_comes_back_by_a_fresh_token() {
    let control = Control::start();
    let dir = tempfile::tempdir().unwrap();
    let first = control.settings(&control.token("first"));
    let relay = Relay::start_with(dir.path(), first.clone());
    let removed = id(dir.path());
    control.command(&["relay", "remove", &removed]);
    not_ready(&relay, "not in the pool");
    let challenge = Client::new(relay.ipv4(), 1).challenge();
    assert_eq!(challenge.certificate.relay.0.to_string(), removed, "it still serves");
    relay.stop();

    // The token that it came with is still good for its identity, and must not undo the removal.
    let relay = Relay::launch(dir.path(), first);
    not_ready(&relay, "not in the pool");
    relay.stop();
    assert_eq!(id(dir.path()), removed);

    let relay = Relay::start_with(dir.path(), control.settings(&control.token("second")));
    relay.until(|page| page.contains("lanrage_relay_control_connected 1"));
    assert_ne!(id(dir.path()), removed);
    let challenge = Client::new(relay.ipv4(), 1).challenge();
    assert_eq!(challenge.certificate.relay.0.to_string(), id(dir.path()));
    relay.stop();
}

/// A changed `--name` was ignored without a word.
#[test]
fn regression_a_fresh_token_renames_a_relay_and_nothing_else_does() {
    let control = Control::start();
    let dir = tempfile::tempdir().unwrap();
    let named = |name: &str, token: &Path| Settings {
        name: Some(name.to_owned()),
        ..control.settings(token)
    };
    let (first, second) = (control.token("first"), control.token("second"));
    let connected = |page: &str| page.contains("lanrage_relay_control_connected 1");
    let mut before = String::new();
    for (name, token, listed) in
        [("anna", &first, "anna"), ("bert", &first, "anna"), ("bert", &second, "bert")]
    {
        let relay = Relay::start_with(dir.path(), named(name, token));
        relay.until(connected);
        relay.stop();
        let relays = control.command(&["relay", "list"]);
        assert!(relays.contains(listed), "{listed} is not in {relays}");
        if !before.is_empty() {
            assert_eq!(id(dir.path()), before, "its number stays");
        }
        before = id(dir.path());
    }
}

/// A fresh token that is worth nothing must not stop a relay that has enrolled.
#[test]
fn a_token_that_control_refuses_leaves_an_enrolled_relay_as_it_is() {
    let (control, other) = (Control::start(), Control::idle());
    let dir = tempfile::tempdir().unwrap();
    let token = control.token("token");
    Relay::start_with(dir.path(), control.settings(&token)).stop();
    let before = enrolment_in(dir.path()).unwrap();
    let foreign = control.settings(&other.token("token"));
    Relay::start_with(dir.path(), foreign.clone()).stop();
    assert_eq!(enrolment_in(dir.path()).unwrap(), before);

    let new = tempfile::tempdir().unwrap();
    let (code, said) = run(new.path(), &foreign);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("correct --control, or get a token there"), "{said}");
    let (code, said) = run(new.path(), &control.settings(&token));
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("spent"), "{said}");
}

/// The token was spent, the relay ended, and a dead entry stayed in the pool.
#[test]
fn regression_no_token_is_spent_while_there_is_no_room_on_disk() {
    let control = Control::start();
    let dir = tempfile::tempdir().unwrap();
    let settings = control.settings(&control.token("token"));
    // A directory in the place of a temporary file stops root, too.
    std::fs::create_dir(dir.path().join("room.tmp")).unwrap();
    let (code, said) = run(dir.path(), &settings);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("room.tmp"), "{said}");
    let other = tempfile::tempdir().unwrap();
    Relay::start_with(other.path(), settings).stop();
}

/// One kick by any player ended every relay whose disk was full.
#[test]
fn regression_a_full_disk_costs_a_relay_its_readiness_and_no_more() {
    let control = Control::start();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let relay = Relay::start_with(dirs[0].path(), control.settings(&control.token("first")));
    relay.until(|page| page.contains("lanrage_relay_control_connected 1"));
    let obstacle = dirs[0].path().join("control.tmp");
    common::eventually("a moment without a write", || std::fs::create_dir(&obstacle).is_ok());
    // A new relay is a new map, which is to be kept as revocations are.
    let mut second = control.settings(&control.token("second"));
    second.advertise = Some(vec!["127.0.0.1:51821".parse().unwrap()]);
    Relay::start_with(dirs[1].path(), second).stop();
    not_ready(&relay, "control.tmp");
    Client::new(relay.ipv4(), 1).challenge();
    relay.until(|page| page.contains("lanrage_relay_control_connected 1"));
    std::fs::remove_dir(&obstacle).unwrap();
    common::eventually("the disk to be tried again", || {
        relay.get("/readyz").starts_with("HTTP/1.1 200")
    });
    relay.stop();
}

/// The program with these settings: its exit code and standard error.
fn run(dir: &Path, settings: &Settings) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanrage-relay"));
    command.arg("run").args(["--listen", "127.0.0.1:0", "--metrics-listen", "off"]);
    command.args(["--advertise", "127.0.0.1:51820", "--state-dir", dir.to_str().unwrap()]);
    command.arg("--control").arg(settings.control.as_ref().unwrap());
    command.arg("--enrolment-token-file").arg(settings.enrolment_token_file.as_ref().unwrap());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}
