//! A machine on which the program runs, as a user runs it.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::common::Netns;

const LANRAGE: &str = env!("CARGO_BIN_EXE_lanrage");

/// A namespace with a state directory and, while it runs, a daemon.
pub(crate) struct Machine {
    pub(crate) netns: Netns,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) daemon: Option<Child>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Others may look for the socket.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { netns: Netns::new(), dir, daemon: None }
    }

    /// Starts a daemon by this command, and waits until it listens.
    pub(crate) fn start(&mut self, mut command: Command) {
        self.daemon = Some(command.stderr(Stdio::null()).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < deadline, "the daemon starts");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/daemon.sock")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.netns.command(LANRAGE);
        command.args(arguments).env("LANRAGE_SOCKET", self.socket());
        command.env("LANRAGE_STATE_DIR", self.state()).stdin(Stdio::null());
        command
    }

    pub(crate) fn daemon_command(&self) -> Command {
        self.command(&["daemon"])
    }

    pub(crate) fn lanrage(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn expect(&self, arguments: &[&str], code: i32, text: &str) {
        let output = self.lanrage(arguments);
        let shown = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {shown}");
        assert!(shown.contains(text), "{arguments:?}: {shown}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ended = daemon.kill();
            let _ended = daemon.wait();
        }
    }
}
