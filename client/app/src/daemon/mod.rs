//! The daemon: one thread that owns the active party's core, sockets and NIC, and answers the
//! command line. What takes time (control, rtnetlink) runs in tasks beside it and hands its result
//! back as a continuation.

mod active;
mod calls;
mod enter;
mod kick;
mod party;
mod pasted;
mod sleep;
mod status;
mod undo;
mod unlisted;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lanrage_proto::SessionId;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::failure::{Failure, FailureKind};
use crate::local::protocol::Reply;
use crate::local::server::{Call, LocalServer};
use crate::metrics::Metrics;
use crate::nic::watch_underlay;
use crate::session::{Control, ControlEvent};
use crate::state::{Device, PartyRecord, Server, StateDir, StateWriter};
pub(crate) use active::Active;
use active::Ready;
use sleep::SleepWatch;
use unlisted::Waiting;

/// What the daemon is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// See [`StateDir`].
    pub state_dir: PathBuf,
    /// Where the command line finds the daemon.
    pub socket: PathBuf,
    /// The NIC's name.
    pub nic: String,
    /// Where Prometheus finds the metrics; nowhere when absent.
    pub metrics: Option<SocketAddr>,
}

/// Runs the daemon until it is told to end.
///
/// # Errors
/// It cannot start: state directory, socket, metrics address. Later failures end no daemon.
pub async fn run(options: Options) -> Result<(), Failure> {
    let other = |error: std::io::Error| Failure::new(FailureKind::Other, error);
    let state = Arc::new(StateDir::open(&options.state_dir)?);
    let device = state.device()?;
    let parties = state.parties()?.into_iter().map(|party| (party.session(), party)).collect();
    let metrics = options.metrics.map(Metrics::serve).transpose()?;
    let server = LocalServer::bind(&options.socket)?;
    let (calls, call_queue) = mpsc::channel(CALLS_MAX);
    let (resume, continuations) = mpsc::unbounded_channel();
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut daemon = Daemon {
        underlay: watch_underlay(options.nic.clone()).map_err(other)?,
        writer: StateWriter::start(state).map_err(other)?,
        options,
        device,
        parties,
        controls: BTreeMap::new(),
        active: None,
        unlisted: BTreeSet::new(),
        waiting: None,
        problem: None,
        busy: false,
        ending: None,
        unsaved: false,
        metrics,
        calls: call_queue,
        resume,
        continuations,
        second,
        sleep: SleepWatch::new(),
    };
    let listening = tokio::spawn(server.serve(calls));
    tracing::info!(socket = %daemon.options.socket.display(), "ready");
    if let Some(session) = daemon.device.active {
        daemon.activate(session, None, None);
    }
    daemon.run(&mut Signals::new().map_err(other)?).await;
    // The answer to `down` leaves before the socket goes.
    tokio::task::yield_now().await;
    listening.abort();
    let _aborted = listening.await;
    Ok(())
}

const CALLS_MAX: usize = 64;

/// What is left to do with the daemon when a task beside it has ended.
type Continuation = Box<dyn FnOnce(&mut Daemon) + Send>;

struct Daemon {
    options: Options,
    device: Device,
    parties: BTreeMap<SessionId, PartyRecord>,
    controls: BTreeMap<Server, Control>,
    active: Option<Active>,
    /// Where control said that this device is no member.
    unlisted: BTreeSet<SessionId>,
    /// Only while the active party is one of those.
    waiting: Option<Waiting>,
    /// Why the active party is not up.
    problem: Option<Failure>,
    /// A change of memberships or of the active party is under way.
    busy: bool,
    /// Set when the daemon is to end: the caller who asked for it, if one did.
    ending: Option<Option<Call>>,
    /// The active party's record differs from the one on disk.
    unsaved: bool,
    metrics: Option<Metrics>,
    underlay: watch::Receiver<u64>,
    calls: mpsc::Receiver<Call>,
    resume: mpsc::UnboundedSender<Continuation>,
    continuations: mpsc::UnboundedReceiver<Continuation>,
    second: Interval,
    sleep: SleepWatch,
    // Last: what was asked to be written is written before the directory's lock goes.
    writer: StateWriter,
}

/// Why the loop woke.
enum Wake {
    Active(Ready),
    Waiting(ControlEvent),
    Call(Call),
    Continue(Continuation),
    UnderlayChanged,
    Second,
    End,
}

impl Daemon {
    /// One turn handles one batch of whatever is ready; tokio picks at random among that, so that a
    /// flood from one side starves no other.
    async fn run(&mut self, signals: &mut Signals) {
        while self.ending.is_none() {
            let wake = tokio::select! {
                ready = active::ready(self.active.as_mut()) => Wake::Active(ready),
                event = unlisted::news(self.waiting.as_mut()) => Wake::Waiting(event),
                Some(call) = self.calls.recv() => Wake::Call(call),
                Some(continuation) = self.continuations.recv() => Wake::Continue(continuation),
                Ok(()) = self.underlay.changed() => Wake::UnderlayChanged,
                _ = self.second.tick() => Wake::Second,
                () = signals.end() => Wake::End,
            };
            let now = Instant::now();
            match wake {
                Wake::Active(Ready::Network) => self.with_active(|a| a.read_network(now)),
                Wake::Active(Ready::Stream(event)) => {
                    self.with_active(|active| active.read_streams(event, now));
                }
                Wake::Active(Ready::Host) => self.read_host(now),
                Wake::Active(Ready::Timer) => self.with_active(|a| a.client.handle_timeout(now)),
                Wake::Active(Ready::Control(event)) => self.handle_control(event, now),
                Wake::Waiting(event) => self.handle_waiting(event),
                Wake::Call(call) => self.handle_call(call, now),
                Wake::Continue(continuation) => continuation(self),
                Wake::UnderlayChanged => self.with_active(|active| {
                    tracing::info!("this host's addresses or routes changed");
                    active.client.handle_network_change(now);
                }),
                Wake::Second => self.handle_second(now),
                Wake::End => self.ending = Some(None),
            }
            self.flush(now);
        }
        self.deactivate();
        if let Some(Some(call)) = self.ending.take() {
            call.answer(Ok(Reply::Done {}));
        }
    }

    fn with_active(&mut self, f: impl FnOnce(&mut Active)) {
        if let Some(active) = &mut self.active {
            f(active);
        }
    }

    /// Runs `operation` beside the loop and `then` on it.
    fn spawn<T: Send + 'static>(
        &self,
        operation: impl Future<Output = T> + Send + 'static,
        then: impl FnOnce(&mut Self, T) + Send + 'static,
    ) {
        let resume = self.resume.clone();
        tokio::spawn(async move {
            let result = operation.await;
            let _ending = resume.send(Box::new(move |daemon: &mut Self| then(daemon, result)));
        });
    }

    fn control(&mut self, server: &Server) -> Control {
        let control = self
            .controls
            .entry(server.clone())
            .or_insert_with(|| Control::new(server.into(), self.device.signing_key()));
        control.clone()
    }

    fn read_host(&mut self, now: Instant) {
        let lost = self.active.as_mut().and_then(|active| active.read_host(now).err());
        if let Some(error) = lost {
            self.handle_lost_nic(&error);
        }
    }

    fn handle_second(&mut self, now: Instant) {
        self.read_host(now);
        self.resume_listed();
        if std::mem::take(&mut self.unsaved) {
            self.save_active();
        }
        self.retry_early_pings(now);
        self.give_up_kicks(now);
        if let Some(slept) = self.sleep.slept() {
            self.wake_up(slept, now);
        }
        self.with_active(|active| {
            active.refresh_online(now);
            active.watch_relays(now);
        });
        if let Some(metrics) = &mut self.metrics {
            metrics.update(self.active.as_ref(), now);
        }
    }

    /// Leases and connections are lost when a machine has slept, and the ticket may have expired;
    /// timers have not noticed.
    fn wake_up(&mut self, slept: Duration, now: Instant) {
        tracing::info!(seconds = slept.as_secs(), "this machine slept");
        self.read_clock(now);
        self.with_active(|active| {
            active.client.handle_network_change(now);
            active.link.want_snapshot();
            active.link.want_ticket();
        });
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
