//! The program as a user runs it: exit codes, the local interface, the state directory. Needs root
//! for its network namespaces; reaches no server.

#![expect(clippy::unwrap_used, reason = "helpers of tests stand outside test functions")]

mod common;
#[path = "common/machine.rs"]
mod machine;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lanrage_proto::RootHash;
use lanrage_proto::party::{Invite, InviteKey, ServerAddress};
use machine::Machine;
use rustix::process::{Pid, Signal, kill_process};
use zeroize::Zeroizing;

const LANRAGE: &str = env!("CARGO_BIN_EXE_lanrage");

fn with_daemon() -> Machine {
    let mut machine = Machine::new();
    machine.start(machine.daemon_command());
    machine
}

fn signal_daemon(machine: &mut Machine, signal: Signal) -> Option<i32> {
    let mut daemon = machine.daemon.take().unwrap();
    kill_process(Pid::from_child(&daemon), signal).unwrap();
    daemon.wait().unwrap().code()
}

fn invite(host: &str, port: u16) -> String {
    let key = InviteKey(Zeroizing::new([7; 32]));
    Invite { host: host.to_owned(), port, key, root: RootHash([9; 32]) }.to_string()
}

fn server(host: &str, port: u16) -> String {
    ServerAddress { host: host.to_owned(), port, root: RootHash([9; 32]) }.to_string()
}

#[test]
fn without_a_daemon_the_code_is_3_and_the_text_says_what_to_do() {
    let machine = Machine::new();
    for arguments in
        [&["status"][..], &["down"], &["party", "list"], &["ping", "anna"], &["party", "leave"]]
    {
        machine.expect(arguments, 3, "start one with `lanrage up`");
    }
}

#[test]
fn wrong_usage_is_2() {
    let machine = with_daemon();
    machine.expect(&["nonsense"], 2, "unrecognized subcommand");
    machine.expect(&["party", "invite", "--uses", "0"], 2, "1..=250");
    let address = server("127.0.0.1", 1);
    machine.expect(&["party", "create", "Not A Name", "--server", &address], 2, "cannot be a name");
    machine.expect(&["party", "create", "lan", "--server", "https://x"], 2, "lanrage-server://");
}

#[test]
fn nothing_active_is_9_and_lists_are_empty() {
    let machine = with_daemon();
    machine.expect(&["status"], 0, "no party is active: create or join one");
    machine.expect(&["party", "list"], 0, "no parties");
    machine.expect(&["party", "list", "--json"], 0, r#"{"parties":[]}"#);
    machine.expect(&["party", "members"], 9, "no party is active");
    machine.expect(&["party", "invite"], 9, "no party is active");
    machine.expect(&["party", "leave"], 9, "no party is active");
    machine.expect(&["party", "switch", "lan"], 9, "there is no party lan");
    machine.expect(&["ping", "anna"], 9, "no party is active");
    machine.expect(&["up"], 0, "no party is active");
}

#[test]
fn damaged_invites_are_5_before_any_server_is_asked() {
    let machine = with_daemon();
    let mut damaged = invite("127.0.0.1", 1);
    damaged.pop();
    machine.expect(&["party", "join", "hello"], 5, "looks like lanrage://host/#");
    machine.expect(&["party", "join", &damaged], 5, "damaged");
}

#[test]
fn unreachable_control_is_6_also_for_an_invite_from_standard_input() {
    let machine = with_daemon();
    machine.expect(&["party", "join", &invite("127.0.0.1", 1)], 6, "cannot reach control");
    let address = server("127.0.0.1", 1);
    machine.expect(&["party", "create", "lan", "--server", &address], 6, "cannot reach control");

    let mut child = machine.command(&["party", "join", "-"]);
    let child = child.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.as_ref().unwrap(), "{}", invite("127.0.0.1", 1)).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(6));
}

#[test]
fn asked_subnet_that_overlaps_a_route_is_7_and_the_route_is_named() {
    let machine = with_daemon();
    machine.netns.ip("link add eth0 type veth peer name cable");
    machine.netns.ip("link set cable up");
    machine.netns.ip("link set eth0 up");
    machine.netns.ip("route add 10.66.8.0/22 dev eth0");
    let address = server("127.0.0.1", 1);
    let create = ["party", "create", "lan", "--server", &address, "--subnet", "10.66.9.0"];
    machine.expect(&create, 7, "10.66.8.0/22 on eth0");
}

#[test]
fn without_the_capability_joining_is_4() {
    let mut machine = Machine::new();
    let mut command = machine.netns.command("setpriv");
    command
        .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", LANRAGE, "daemon"])
        .env("LANRAGE_SOCKET", machine.socket())
        .env("LANRAGE_STATE_DIR", machine.state());
    machine.start(command);
    machine.expect(&["party", "join", &invite("127.0.0.1", 1)], 4, "CAP_NET_ADMIN");
}

#[test]
fn second_daemon_is_8_and_names_the_first() {
    let machine = with_daemon();
    let pid = machine.daemon.as_ref().unwrap().id().to_string();
    let elsewhere = machine.dir.path().join("other.sock");
    let output = machine.daemon_command().arg("--socket").arg(&elsewhere).output().unwrap();
    assert_eq!(output.status.code(), Some(8));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(&format!("in use by process {pid}")), "{text}");
}

#[test]
fn corrupt_and_newer_state_is_8_and_kept() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.state()).unwrap();
    let path = machine.state().join("device");
    for (content, text) in [("garbage", "corrupt"), ("lanrage-state 99 x\n{}", "update LANrage")] {
        std::fs::write(&path, content).unwrap();
        machine.expect(&["daemon"], 8, text);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
    machine.expect(&["up"], 8, "update LANrage");
}

#[test]
fn signals_end_the_daemon_with_0_and_remove_the_socket() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut machine = with_daemon();
        assert_eq!(signal_daemon(&mut machine, signal), Some(0));
        assert!(!machine.socket().exists());
    }
}

#[test]
fn socket_left_by_sigkill_is_replaced() {
    let mut machine = with_daemon();
    signal_daemon(&mut machine, Signal::KILL);
    assert!(machine.socket().exists());
    machine.start(machine.daemon_command());
    machine.expect(&["status"], 0, "no party");
}

#[test]
fn up_starts_a_daemon_and_down_ends_it() {
    let machine = Machine::new();
    machine.expect(&["up"], 0, "no party is active");
    machine.expect(&["up"], 0, "no party is active");
    machine.expect(&["down"], 0, "");
    machine.expect(&["status"], 3, "start one");
}

/// `down` came back as soon as the LAN was down; the daemon still held its state directory, and a
/// script's next `up` could find it in use.
#[test]
fn regression_daemon_has_ended_when_down_comes_back() {
    let machine = Machine::new();
    for _ in 0..10 {
        machine.expect(&["up"], 0, "no party is active");
        let pid = std::fs::read_to_string(machine.state().join("lock")).unwrap();
        machine.expect(&["down"], 0, "");
        assert!(!machine.socket().exists());
        let lock = std::fs::File::open(machine.state().join("lock")).unwrap();
        let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        assert!(rustix::fs::flock(&lock, operation).is_ok(), "process {pid} holds the directory");
    }
    let log = std::fs::metadata(machine.state().join("daemon.log")).unwrap();
    assert_eq!(log.permissions().mode() & 0o777, 0o600);
}

/// The failure was printed with `eprintln!`, which panics: the exit code was 101.
#[test]
fn regression_exit_code_is_the_same_when_nobody_reads_the_errors() {
    let machine = Machine::new();
    let mut child = machine.command(&["status"]).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn other_users_get_no_answer() {
    let machine = with_daemon();
    let mode = std::fs::metadata(machine.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    // Outside the namespace, which only root can enter: the socket is a file.
    let mut direct = Command::new(LANRAGE);
    direct.arg("status").env("LANRAGE_SOCKET", machine.socket()).uid(65_534).gid(65_534);
    let output = direct.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "by the file's mode");
    let open = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(machine.socket(), open).unwrap();
    let output = direct.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "by the peer's credentials: {text}");
    assert!(text.contains("answers root and user 0 only"), "{text}");
}

/// One line in, one line out.
fn speak(machine: &Machine, line: &[u8]) -> String {
    let mut stream = UnixStream::connect(machine.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // The daemon may hang up before it has read everything.
    let _refused = stream.write_all(line);
    let mut answer = String::new();
    let _reset = BufReader::new(stream).read_line(&mut answer);
    answer
}

#[test]
fn lines_that_are_no_requests_get_clear_errors_and_do_no_harm() {
    let machine = with_daemon();
    for (line, text) in [
        (&b"{\"version\":1,\"request\":\"fly\"}\n"[..], "unknown variant `fly`"),
        (b"{\"version\":2,\"request\":\"status\"}\n", "version 1 of its interface"),
        (b"{\"request\":\"status\"}\n", "missing field `version`"),
        (b"GET / HTTP/1.1\n", "cannot read the request"),
        (b"\xff\xfe\n", "cannot read the request"),
        (b"{\"version\":1,\"request\":\"ping\"}\n", "missing field `member`"),
    ] {
        let answer = speak(&machine, line);
        assert!(answer.contains("\"error\"") && answer.contains(text), "{answer}");
    }
    let mut long = vec![b' '; 1 << 20];
    long.push(b'\n');
    let answer = speak(&machine, &long);
    assert!(answer.is_empty() || answer.contains("at most 16384 bytes"), "{answer}");
    let exactly_too_long = speak(&machine, &vec![b'x'; 16 << 10]);
    assert!(exactly_too_long.contains("at most 16384 bytes"), "{exactly_too_long}");
    machine.expect(&["status"], 0, "no party");
}

#[test]
fn watched_status_goes_on_until_the_caller_hangs_up() {
    let machine = with_daemon();
    let mut child = machine.command(&["status", "--watch", "--json"]);
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let status: serde_json::Value =
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(status["pid"], machine.daemon.as_ref().unwrap().id());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    machine.expect(&["status"], 0, "no party");
}

#[test]
fn metrics_answer_prometheus() {
    let mut machine = Machine::new();
    let mut command = machine.daemon_command();
    command.args(["--metrics", "127.0.0.1:9469"]);
    machine.start(command);
    let ask = |path: &str| {
        machine.netns.enter(|| {
            let mut stream = std::net::TcpStream::connect("127.0.0.1:9469").unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            std::io::read_to_string(stream).unwrap()
        })
    };
    for (path, status, body) in [
        ("/metrics", "200", "lanrage_client_members_online"),
        ("/healthz", "200", "ok\n"),
        ("/readyz", "503", "no relay of an active party answers\n"),
        ("/nonsense", "404", ""),
    ] {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let text = ask(path);
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {text}");
            if text.contains(body) {
                break;
            }
            // Gauges are first set after a second.
            assert!(Instant::now() < deadline, "{path}: {text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn reader_that_goes_away_is_no_failure() {
    let machine = with_daemon();
    let mut child = machine.command(&["status", "--watch", "--json"]);
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn reader_that_is_no_terminal_gets_no_escape_sequences() {
    let machine = with_daemon();
    let mut child = machine.command(&["status", "--watch"]);
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("no party is active"), "{line:?}");
}

#[test]
fn user_without_rights_is_told_to_be_root() {
    let machine = Machine::new();
    let owned = machine.dir.path().join("of-root");
    std::fs::create_dir(&owned).unwrap();
    let nobody = |state: PathBuf| {
        let mut command = Command::new(LANRAGE);
        command.arg("up").env("LANRAGE_SOCKET", machine.socket()).env("LANRAGE_STATE_DIR", state);
        let output = command.uid(65_534).gid(65_534).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for dir in [owned.join("state"), owned.clone()] {
        let (code, text) = nobody(dir);
        assert_eq!(code, Some(4), "{text}");
        assert!(text.contains("run as root"), "{text}");
    }
    machine.expect(&["up"], 0, "");
    let (code, text) = nobody(machine.state());
    machine.expect(&["down"], 0, "");
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("the daemon's socket") && text.contains("run as root"), "{text}");
}

#[test]
fn up_with_other_options_than_the_running_daemons_is_refused() {
    let machine = with_daemon();
    machine.expect(&["up"], 0, "");
    machine.expect(&["up", "--nic", "lanrage0"], 0, "");
    machine.expect(&["up", "--nic", "other0"], 9, "--nic lanrage0: end it first");
    machine.expect(&["up", "--metrics", "127.0.0.1:9470"], 9, "--metrics off");
    machine.expect(&["up", "--state-dir", "/nonexistent"], 9, "--state-dir");
}

#[test]
fn log_of_the_daemon_before_is_kept() {
    let machine = Machine::new();
    for _ in 0..2 {
        machine.expect(&["up"], 0, "");
        machine.expect(&["down"], 0, "");
    }
    let log = std::fs::read_to_string(machine.state().join("daemon.log")).unwrap();
    assert_eq!(log.matches("ready").count(), 2, "{log}");
    machine.expect(&["up", "--log", "lanrage=nonsense"], 2, "--log");
    machine.expect(&["up", "--log", "warn"], 0, "");
    let later = std::fs::read_to_string(machine.state().join("daemon.log")).unwrap();
    machine.expect(&["down"], 0, "");
    assert_eq!(later.matches("ready").count(), 2, "{later}");
}

/// A file system without room, unmounted when dropped.
struct FullDisk(PathBuf);

impl FullDisk {
    fn new(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let mut mount = Command::new("mount");
        common::run(mount.args(["-t", "tmpfs", "-o", "size=16k", "lanrage-test"]).arg(&at));
        let disk = Self(at);
        let _full = std::fs::write(disk.0.join("filler"), vec![0; 32 << 10]);
        disk
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn full_disk_is_named_when_the_daemon_cannot_say_so() {
    let machine = Machine::new();
    let _disk = FullDisk::new(machine.state());
    let output = machine.lanrage(&["up"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_ne!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("No space left on device"), "{text}");
}

#[test]
fn second_daemon_at_the_socket_is_8_and_a_foreign_interface_1() {
    let machine = with_daemon();
    let state = machine.dir.path().join("other-state");
    let output = machine.daemon_command().arg("--state-dir").arg(&state).output().unwrap();
    assert_eq!(output.status.code(), Some(8));

    let mut other = Machine::new();
    other.netns.ip("link add eth0 type veth peer name cable");
    let mut command = other.daemon_command();
    command.args(["--nic", "eth0"]);
    other.start(command);
    let address = server("127.0.0.1", 1);
    // Before control is asked, which would make a party.
    let create = ["party", "create", "lan", "--server", &address];
    other.expect(&create, 1, "an interface eth0 exists already");
    other.expect(&["party", "join", &invite("127.0.0.1", 1)], 1, "eth0 exists already");
}

#[test]
fn waiting_for_a_silent_server_is_said() {
    let machine = with_daemon();
    let listener = machine.netns.enter(|| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    let mut child = machine.command(&["party", "join", &invite("127.0.0.1", port)]);
    let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let asked = Instant::now();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains("waiting for the control service"), "{line}");
    assert!(asked.elapsed() < Duration::from_secs(5));
}
