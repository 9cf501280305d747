use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
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
use crate::local::protocol::{Reply, Request, Status};

/// In the state directory: what daemons in the background say.
const LOG: &str = "daemon.log";
/// The log before, once that has grown beyond this many bytes.
const LOG_BEFORE: &str = "daemon.log.1";
const LOG_LEN_MAX: u64 = 1 << 20;
const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// Bytes of a log that are searched for the reason of a failed start.
const LOG_TAIL_MAX: u64 = 4096;

/// Starts a daemon in the background when none answers, and waits until it does. What it says goes
/// to the end of `daemon.log` in the state directory.
///
/// # Errors
/// The daemon ends at once: its own failure, or its exit code's. One that runs already was started
/// with other options.
pub(super) async fn ensure_daemon(daemon: &DaemonArgs, socket: &Path) -> Result<(), Failure> {
    if let Some(mut running) = LocalClient::find(socket).await? {
        let reply = running.call(Request::Status { watch: false }).await?;
        let Reply::Status(status) = reply else { return Ok(()) };
        return check_options(daemon, &status);
    }
    let other = |error: std::io::Error| {
        Failure::new(FailureKind::Other, format!("cannot start a daemon: {error}"))
    };
    let state_dir = &daemon.state_dir();
    create_private_dir(state_dir)?;
    let log = state_dir.join(LOG);
    if fs::metadata(&log).is_ok_and(|log| log.len() > LOG_LEN_MAX) {
        fs::rename(&log, state_dir.join(LOG_BEFORE)).map_err(other)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    let errors = options.open(&log).map_err(other)?;
    let said_before = errors.metadata().map_err(other)?.len();
    let program = std::env::current_exe().map_err(other)?;
    let mut command = Command::new(program);
    command.arg("daemon").arg("--socket").arg(socket);
    command.arg("--state-dir").arg(state_dir).arg("--nic").arg(daemon.nic());
    if let Some(metrics) = daemon.metrics {
        command.arg("--metrics").arg(metrics.to_string());
    }
    if let Some(filter) = &daemon.log {
        command.arg("--log").arg(filter);
    }
    // A process group of its own: an interrupt at the terminal is for the command line alone.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    wait_until_ready(command.spawn().map_err(other)?, socket, (&log, said_before)).await
}

/// A daemon that runs keeps its options: what was asked for and differs is not passed over.
fn check_options(asked: &DaemonArgs, running: &Status) -> Result<(), Failure> {
    let same_dir = |dir: &Path| {
        let whole = |dir: &Path| fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        whole(dir) == whole(&running.state_dir)
    };
    let metrics = running.metrics.map_or_else(|| "off".to_owned(), |address| address.to_string());
    let state_dir = running.state_dir.display().to_string();
    let checks = [
        ("--state-dir", asked.state_dir.as_deref().is_none_or(same_dir), &state_dir),
        ("--nic", asked.nic.as_ref().is_none_or(|nic| *nic == running.nic), &running.nic),
        ("--metrics", asked.metrics.is_none() || asked.metrics == running.metrics, &metrics),
    ];
    match checks.into_iter().find(|(_, is_as_asked, _)| !is_as_asked) {
        None => Ok(()),
        Some((option, _, value)) => {
            let message = format!(
                "a daemon runs already, with {option} {value}: end it first with `lanrage down`"
            );
            Err(Failure::new(FailureKind::Conflict, message))
        }
    }
}

async fn wait_until_ready(
    mut child: std::process::Child,
    socket: &Path,
    (log, said_before): (&Path, u64),
) -> Result<(), Failure> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if LocalClient::connect(socket).await.is_ok() {
            return Ok(());
        }
        let ended = child.try_wait().ok().flatten();
        if ended.is_some() || Instant::now() > deadline {
            let code = ended.and_then(|status| status.code());
            return Err(Failure::new(kind_of(code), last_line(log, said_before)));
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
        _ => FailureKind::Other,
    }
}

fn last_line(log: &Path, said_before: u64) -> String {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(said_before))?;
        file.take(LOG_TAIL_MAX).read_to_end(&mut text)
    });
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    let message = last.map(|line| line.trim_start_matches("lanrage: ").to_owned());
    message.filter(|_| read.is_ok()).unwrap_or_else(|| why_nothing_was_said(log))
}

/// A full disk keeps the daemon from starting and from saying why.
fn why_nothing_was_said(log: &Path) -> String {
    let probe =
        OpenOptions::new().append(true).open(log).and_then(|mut file| file.write_all(b"\n"));
    let at = log.display();
    match probe {
        Err(error) => format!("the daemon does not start, and {at} cannot be written: {error}"),
        Ok(()) => format!("the daemon does not start, and {at} does not say why"),
    }
}
