//! Nothing of a lab is left, however its process ends.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use lanrage_lab::{Error, Lab, LabId, LinkSpec, NatKind, down, list};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(10);

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn namespaces(id: &LabId) -> Vec<PathBuf> {
    entries("/run/netns", id)
}

/// What of a directory is named after the lab.
fn entries(directory: &str, id: &LabId) -> Vec<PathBuf> {
    let prefix = id.netns("");
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix))
        .collect()
}

fn alive(process: u32) -> bool {
    // A zombie that nobody has waited for is as dead as one that is gone.
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn gone(id: &LabId, dir: &Path) -> bool {
    namespaces(id).is_empty()
        && entries("/etc/netns", id).is_empty()
        && !dir.exists()
        && list().unwrap().iter().all(|lab| lab.id != *id)
}

/// A process that owns a lab: `lanrage-lab up`.
struct Owner {
    process: Child,
    id: LabId,
    dir: PathBuf,
}

impl Owner {
    fn start(environment: &[(&str, &Path)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_lanrage-lab"))
            .args(["up", "--relays", "1"])
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let words: Vec<&str> = first.split(' ').collect();
        let (id, dir) = (words[1].parse().unwrap(), words[3].into());
        let ready = lines.any(|line| line.unwrap().starts_with("end it with"));
        assert!(ready, "the lab stands");
        Self { process, id, dir }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A program in a namespace of the lab that ignores hang-ups and the like.
fn stubborn_program(id: &LabId, host: &str) -> Child {
    let script = "trap '' HUP INT TERM; while :; do sleep 60; done";
    Command::new("ip")
        .args(["netns", "exec", &id.netns(host), "sh", "-c", script])
        .process_group(0)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn ends_with(signal: Signal) {
    let owner = Owner::start(&[]);
    assert_eq!(namespaces(&owner.id).len(), 12);
    assert!(owner.dir.is_dir());
    let mut program = stubborn_program(&owner.id, "relay1");
    let inside = program.id();
    assert!(alive(inside));
    owner.signal(signal);
    wait_until("the lab is gone", || gone(&owner.id, &owner.dir));
    wait_until("its program is gone", || !alive(inside));
    program.wait().unwrap();
}

#[test]
fn sigkill_of_the_owner() {
    ends_with(Signal::KILL);
}

#[test]
fn sigint_of_the_owner() {
    ends_with(Signal::INT);
}

#[test]
fn sigterm_of_the_owner() {
    ends_with(Signal::TERM);
}

#[test]
fn drop_ends_programs_and_files() {
    let lab = Lab::new().unwrap();
    let (id, dir) = (lab.id().clone(), lab.dir().to_owned());
    let host = lab.host("host", LinkSpec::direct()).unwrap();
    let mut sleep = host.command("sleep");
    sleep.arg("1000");
    let process = host.spawn("sleep", sleep).unwrap();
    process.freeze().unwrap();
    process.thaw().unwrap();
    let inside = process.id();
    drop(lab);
    assert!(gone(&id, &dir), "{:?}", namespaces(&id));
    wait_until("its program is gone", || !alive(inside));
}

#[test]
fn panic_tears_down() {
    let (tell, told) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let lab = Lab::new().unwrap();
        lab.nat("nat", NatKind::Symmetric, LinkSpec::direct()).unwrap();
        tell.send((lab.id().clone(), lab.dir().to_owned())).unwrap();
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    let (id, dir) = told.recv().unwrap();
    assert!(gone(&id, &dir));
}

/// The guardian is found by its name and the lab's id in its arguments.
fn guardian_of(id: &LabId) -> u32 {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .find(|process: &u32| {
            let arguments = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let mut arguments = arguments.split(|byte| *byte == 0);
            arguments.any(|argument| argument == b"lanrage-lab-guardian")
                && arguments.next() == Some(id.to_string().as_bytes())
        })
        .expect("the lab has a guardian")
}

#[test]
fn the_next_lab_sweeps_what_a_dead_guardian_left() {
    let mut owner = Owner::start(&[]);
    let guardian = guardian_of(&owner.id);
    kill_process(Pid::from_raw(guardian.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
    owner.signal(Signal::KILL);
    owner.process.wait().unwrap();
    // Another test's lab may sweep it too; nobody else would.
    let _lab = Lab::new().unwrap();
    assert!(gone(&owner.id, &owner.dir));
}

#[test]
fn a_sweep_spares_the_living() {
    let owner = Owner::start(&[]);
    let _lab = Lab::new().unwrap();
    assert_eq!(namespaces(&owner.id).len(), 12);
    assert!(list().unwrap().iter().any(|lab| lab.id == owner.id && lab.owner_alive));
}

#[test]
fn down_ends_the_owner_and_the_lab() {
    let mut owner = Owner::start(&[]);
    down(&owner.id).unwrap();
    assert!(gone(&owner.id, &owner.dir));
    assert!(!owner.process.wait().unwrap().success());
    assert!(matches!(down(&owner.id), Err(Error::NoSuchLab(_))));
}

#[test]
fn a_lab_left_standing_stays_until_down() {
    let lab = Lab::new().unwrap();
    lab.host("host", LinkSpec::direct()).unwrap();
    let dir = lab.dir().to_owned();
    let id = lab.leave_standing().unwrap();
    drop(Lab::new().unwrap());
    assert_eq!(namespaces(&id).len(), 2);
    down(&id).unwrap();
    assert!(gone(&id, &dir));
}

#[test]
fn lab_keep_keeps_the_run_directory() {
    let temporary = std::env::temp_dir().join(format!("lab-keep-test-{}", std::process::id()));
    let owner = Owner::start(&[("LAB_KEEP", &temporary)]);
    fs::write(owner.dir.join("a.log"), "kept").unwrap();
    owner.signal(Signal::KILL);
    wait_until("the lab is gone", || gone(&owner.id, &owner.dir));
    let kept = temporary.join(owner.id.to_string()).join("a.log");
    assert_eq!(fs::read_to_string(kept).unwrap(), "kept");
    fs::remove_dir_all(temporary).unwrap();
}

#[test]
fn a_given_directory_stays() {
    let dir = std::env::temp_dir().join(format!("lab-dir-test-{}", std::process::id()));
    let lab = Lab::in_dir(&dir).unwrap();
    assert_eq!(lab.dir(), dir);
    drop(lab);
    assert!(dir.is_dir());
    fs::remove_dir(dir).unwrap();
}

#[test]
fn what_is_missing_is_said() {
    // Where every user may run it.
    let dir = tempfile_for_all();
    let program = dir.join("lanrage-lab");
    fs::copy(env!("CARGO_BIN_EXE_lanrage-lab"), &program).unwrap();
    let complaint = |command: &mut Command| {
        let output = command.arg("up").output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let nobody = complaint(Command::new(&program).uid(65_534).gid(65_534));
    assert!(nobody.contains("run it as root"), "{nobody}");
    let no_tools = complaint(Command::new(&program).env("PATH", "/nonexistent"));
    assert!(no_tools.contains("iproute2"), "{no_tools}");
    fs::remove_dir_all(dir).unwrap();
}

fn tempfile_for_all() -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let dir = std::env::temp_dir().join(format!("lab-nobody-test-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

#[test]
fn bad_names_are_refused() {
    let lab = Lab::new().unwrap();
    for name in ["", "a b", "../x", "eth0", "lan", "sixteen-letters-"] {
        let refused = lab.host(name, LinkSpec::direct());
        assert!(matches!(refused, Err(Error::BadName(_))), "{name:?}");
    }
    lab.host("twin", LinkSpec::direct()).unwrap();
    let refused = lab.host("twin", LinkSpec::direct());
    assert!(matches!(refused, Err(Error::NameTaken(_))));
    let refused = lab.host("tiny", LinkSpec::direct().mtu(100));
    assert!(matches!(refused, Err(Error::BadMtu(100))));
}
