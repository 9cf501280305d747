use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lanrage_relay_uring::Waker;
use tokio::sync::{mpsc, oneshot};

use super::carried::{FrozenBinder, Halted, ShardState, Waiting};
use super::channel::Channel;
use super::gate::Gate;
use super::give::{Estate, GiveError, Halt, give};
use super::take::{STDIN, VARIABLE};
use crate::mesh::Mesh;
use crate::published::Published;
use crate::queues::Queues;
use crate::streams::Outlet;
use crate::systemd::Notifier;

const BINDER_PATIENCE: Duration = Duration::from_secs(2);
/// For the answer to who asked, on its way through the admin socket.
const FAREWELL: Duration = Duration::from_millis(100);

/// Starts a relay that takes over from this process, by [`super::give()`]; the command is one that would
/// start it by itself, `run` and its settings.
///
/// # Errors
/// What the kernel says.
pub fn start(command: &mut Command) -> io::Result<(Channel, Child)> {
    let (channel, other) = Channel::pair()?;
    let child = command.env(VARIABLE, STDIN).stdin(Stdio::from(other)).spawn()?;
    // With it goes the other end: when the new process ends, the socket is closed.
    command.stdin(Stdio::null());
    Ok((channel, child))
}

/// Where to ask for an upgrade; the answer is the new process's id.
pub(crate) type Upgrades = mpsc::Sender<oneshot::Sender<Result<u32, String>>>;

/// A relay whose threads run.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) estate: Estate,
    pub(crate) binder: Arc<Gate<FrozenBinder>>,
    pub(crate) shards: Arc<Gate<ShardState>>,
    pub(crate) binder_thread: std::thread::Thread,
    pub(crate) wakers: Vec<Waker>,
    /// To the streams' thread, if there is one.
    pub(crate) streams: Option<Outlet>,
    pub(crate) queues: Arc<Queues>,
    pub(crate) published: Arc<Published>,
    pub(crate) mesh: Arc<Mesh>,
    /// As it was started: the file may be another by now, which is the point.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) notifier: Notifier,
}

/// Upgrades when asked, until one succeeds.
pub(crate) async fn offer_upgrades(
    running: Running,
    mut asked: mpsc::Receiver<oneshot::Sender<Result<u32, String>>>,
    let_go: impl FnOnce(),
) {
    let running = Arc::new(running);
    while let Some(answer) = asked.recv().await {
        tracing::info!(program = %running.program.display(), "handing over to a new process");
        running.notifier.reloading();
        let task = tokio::task::spawn_blocking({
            let running = running.clone();
            move || running.upgrade()
        });
        let done = task.await.context("handing over").flatten();
        match done {
            Ok(pid) => {
                tracing::info!(pid, "the new process serves; this one ends");
                let_go();
                let _ = answer.send(Ok(pid));
                tokio::time::sleep(FAREWELL).await;
                return;
            }
            Err(error) => {
                running.published.upgrades_failed.fetch_add(1, Ordering::Relaxed);
                running.notifier.ready();
                let error = format!("{error:#}");
                tracing::error!(error, "no upgrade: this process goes on");
                // Whoever asked may be gone.
                let _ = answer.send(Err(error));
            }
        }
    }
    std::future::pending().await
}

impl Running {
    fn upgrade(&self) -> anyhow::Result<u32> {
        let mut command = Command::new(&self.program);
        // It names this process (sd_watchdog_enabled(3)).
        command.args(&self.arguments).env_remove("WATCHDOG_PID");
        let (channel, mut child) =
            start(&mut command).with_context(|| format!("starting {}", self.program.display()))?;
        let pid = child.id();
        let kill = || {
            // It may be dead already, and nobody else waits for it.
            let _ = child.kill();
            let _ = child.wait();
        };
        give(&channel, &self.estate, &mut Threads(self), kill)?;
        self.notifier.main_pid(pid);
        Ok(pid)
    }
}

/// The threads of a relay that runs.
struct Threads<'a>(&'a Running);

impl Halt for Threads<'_> {
    fn freeze(&mut self) -> Result<FrozenBinder, GiveError> {
        let deadline = Instant::now() + BINDER_PATIENCE;
        let frozen = self.0.binder.close(1, deadline, || self.0.binder_thread.unpark());
        let mut frozen =
            frozen.and_then(|mut all| all.pop()).ok_or(GiveError::Busy("the binder"))?;
        let published = &self.0.published;
        frozen.has_control = published.has_control.load(Ordering::Relaxed);
        frozen.exits_drained = published.exits_drained.load(Ordering::Relaxed);
        frozen.upgrades = published.upgrades.load(Ordering::Relaxed);
        frozen.upgrades_failed = published.upgrades_failed.load(Ordering::Relaxed);
        Ok(frozen)
    }

    fn halt(&mut self, deadline: Instant) -> Result<Halted, GiveError> {
        let Running { wakers, streams, .. } = self.0;
        let wake = || {
            wakers.iter().for_each(Waker::wake);
            streams.iter().for_each(Outlet::call);
        };
        let threads = wakers.len() + usize::from(streams.is_some());
        let shards = self.0.shards.close(threads, deadline, wake);
        let shards = shards.ok_or(GiveError::Busy("a shard"))?;
        Ok(Halted { shards, waiting: Waiting::take(&self.0.queues) })
    }

    fn resume(&mut self, halted: Option<Halted>) {
        if let Some(halted) = halted {
            halted.waiting.put(&self.0.queues);
        }
        // The new process may have sent to other relays: go on after it.
        self.0.mesh.publish();
        self.0.shards.reopen();
        self.0.binder.reopen();
    }
}
