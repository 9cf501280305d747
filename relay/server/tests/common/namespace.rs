use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace with a loopback, gone when dropped.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Runs `test`, and what it starts, in a namespace of its own. Needs root, and `ip` of iproute2.
pub fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("lanrage-relay-{}-{number}", std::process::id());
    run("ip", &format!("netns add {name}"));
    let namespace = Namespace(name);
    let file = File::open(format!("/run/netns/{}", namespace.0)).unwrap();
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        run("ip", "link set lo up");
        test();
    });
    let result = thread.join();
    drop(namespace);
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command that must do well; gives what it printed.
pub fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
