use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lanrage_state::create_private_dir;
use tokio::time::{Instant, sleep};

use super::DaemonArgs;
use crate::failure::{Failure, FailureKind};
use crate::local::client::LocalClient;

/// In the state directory: what a daemon in the background says, since it was started.
const LOG: &str = "daemon.log";
const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// Bytes of a log that are searched for the reason of a failed start.
const LOG_TAIL_MAX: u64 = 4096;

/// Starts a daemon in the background when none answers, and waits until it does. What it says goes
/// to `daemon.log` in the state directory.
///
/// # Errors
/// The daemon ends at once: its own failure, or its exit code's.
pub(super) async fn ensure_daemon(daemon: &DaemonArgs, socket: &Path) -> Result<(), Failure> {
    if LocalClient::connect(socket).await.is_ok() {
        return Ok(());
    }
    let other = |error: std::io::Error| {
        Failure::new(FailureKind::Other, format!("cannot start a daemon: {error}"))
    };
    let state_dir = &daemon.state_dir;
    create_private_dir(state_dir)?;
    let log = state_dir.join(LOG);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let errors = options.open(&log).map_err(other)?;
    let program = std::env::current_exe().map_err(other)?;
    let mut command = Command::new(program);
    command.arg("daemon").arg("--socket").arg(socket);
    command.arg("--state-dir").arg(state_dir).arg("--nic").arg(&daemon.nic);
    if let Some(metrics) = daemon.metrics {
        command.arg("--metrics").arg(metrics.to_string());
    }
    // A process group of its own: an interrupt at the terminal is for the command line alone.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    wait_until_ready(command.spawn().map_err(other)?, socket, &log).await
}

async fn wait_until_ready(
    mut child: std::process::Child,
    socket: &Path,
    log: &Path,
) -> Result<(), Failure> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if LocalClient::connect(socket).await.is_ok() {
            return Ok(());
        }
        let ended = child.try_wait().ok().flatten();
        if ended.is_some() || Instant::now() > deadline {
            let code = ended.and_then(|status| status.code());
            return Err(Failure::new(kind_of(code), last_line(log)));
        }
        sleep(POLL).await;
    }
}

/// The daemon's exit code is all that tells its kind of failure apart.
const fn kind_of(code: Option<i32>) -> FailureKind {
    match code {
        Some(2) => FailureKind::Usage,
        Some(3) => FailureKind::NoDaemon,
        Some(4) => FailureKind::Rights,
        Some(8) => FailureKind::StateCorrupt,
        Some(9) => FailureKind::Conflict,
        _ => FailureKind::Other,
    }
}

fn last_line(log: &Path) -> String {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|file| file.take(LOG_TAIL_MAX).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    let message = last.map(|line| line.trim_start_matches("lanrage: ").to_owned());
    message
        .filter(|_| read.is_ok())
        .unwrap_or_else(|| "the daemon does not start: see what `lanrage daemon` says".to_owned())
}
