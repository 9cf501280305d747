use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use lanrage_relay_core::{Binder, Identity, Shard, Stun};
use lanrage_relay_table::{self as table, Reader};
use lanrage_relay_uring::{
    Backend, BackendKind, GsoSwitch, Options, SocketId, SocketOptions, Sockets, Waker, bind, probe,
};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, channel, unbounded_channel};
use tokio::sync::oneshot;

use crate::admin::{self, Admin, AdminSocket, Serving};
use crate::binder::{BinderThread, Orders};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{Link, ticket_keys};
use crate::enrol::enrolment;
use crate::failure::Failure;
use crate::handover::{
    self, ADMIN, Estate, FrozenBinder, Gate, Halted, METRICS, Memory, Running, ShardState, Taken,
    Upgrades, Waiting, offer_upgrades,
};
use crate::http::{self, Health};
use crate::kept::Kept;
use crate::metrics::Facts;
use crate::published::{Published, ShardView};
use crate::queues::Queues;
use crate::shard::{Pass, Relayer, forward};
use crate::state::{Enrolment, StateDir, Told};
use crate::systemd::Notifier;

/// Orders from the slow side that may wait for the binder.
const ORDERS: usize = 64;

/// What a relay that has started serves.
#[derive(Clone, Debug)]
pub struct Started {
    /// UDP addresses, with the ports the kernel chose.
    pub listen: Vec<SocketAddr>,
    /// Where `/metrics` is.
    pub metrics: Option<SocketAddr>,
    /// How the shards talk to the kernel.
    pub backend: BackendKind,
}

/// Runs a relay until `stop` is ready. `started` is called when the addresses are bound; enrolling
/// may still be ahead.
///
/// # Errors
/// See [`Failure`].
pub async fn run(
    config: Config,
    stop: impl Future<Output = ()>,
    started: impl FnOnce(&Started),
) -> Result<(), Failure> {
    let mut taken = handover::take(&config)?;
    let end = serve(config, stop, started, &mut taken).await;
    if let (Err(failure), Some(taken)) = (&end, &taken) {
        // Heard only as long as the other process serves.
        taken.refuse(&anyhow::anyhow!("{failure}"));
    }
    end
}

async fn serve(
    config: Config,
    stop: impl Future<Output = ()>,
    started: impl FnOnce(&Started),
    taken: &mut Option<Taken>,
) -> Result<(), Failure> {
    let clock = match taken {
        Some(taken) => Clock::since(taken.clock_origin_ns),
        None => Clock::start(),
    };
    let state = match taken.as_mut().and_then(|taken| taken.lock.take()) {
        Some(lock) => StateDir::adopt(&config.state_dir, lock)?,
        None => StateDir::open(&config.state_dir)?,
    };
    let keys = state.keys()?;
    let options = Options { gso: GsoSwitch::new(config.gso.into()), ..Options::default() };
    let resolved =
        probe::resolve(config.backend.into(), &options).context("opening the back end")?;
    tracing::info!(backend = resolved.kind.as_str(), reason = resolved.reason, "back end");
    let sockets = match taken {
        Some(taken) => std::mem::take(&mut taken.sockets),
        None => bind(&config.listen, config.shards, &SocketOptions::default())?,
    };
    let metrics = metrics_listener(&config, taken.as_mut()).await?;
    let admin_socket = admin_socket(&config, taken.as_mut())?;
    let listening = Started {
        listen: sockets[0].locals().map(|(_, address)| address).collect(),
        metrics: metrics.as_ref().and_then(|listener| listener.local_addr().ok()),
        backend: resolved.kind,
    };
    log_sockets(&sockets[0]);

    let published = Arc::new(Published::default());
    let facts = Facts { backend: resolved.kind.as_str(), capacity: config.capacity.leases };
    let health = Health { published: published.clone(), facts, clock, shards: config.shards };
    let health = Arc::new(health);
    let admin = Arc::new(Admin { health: health.clone(), serving: OnceLock::new() });
    let notifier = Notifier::from_environment();
    let mut estate = Estate {
        listen: config.listen.clone(),
        sockets: sockets.iter().map(Sockets::duplicate).collect::<Result<_, _>>().context("dup")?,
        capacity: config.capacity,
        memory: match taken {
            Some(taken) => taken.memory.clone(),
            None => Memory::new(config.capacity).context("allocating the lease table")?,
        },
        lock: state.lock().duplicate().context("dup")?,
        listeners: Vec::new(),
        clock_origin_ns: clock.origin_ns(),
    };
    let mut name = |name: &str, listener: Option<BorrowedFd<'_>>| -> anyhow::Result<()> {
        if let Some(listener) = listener {
            let listener = listener.try_clone_to_owned().context("dup")?;
            estate.listeners.push((name.to_owned(), listener));
        }
        Ok(())
    };
    name(METRICS, metrics.as_ref().map(|listener| listener.as_fd()))?;
    name(ADMIN, admin_socket.as_ref().map(|socket| socket.listener.as_fd()))?;
    let operators = Operators {
        admin_stays: admin_socket.as_ref().map(|socket| socket.stays.clone()),
        tasks: Mutex::default(),
        waiting: Mutex::new(Some((metrics, admin_socket, health.clone(), admin.clone()))),
    };
    if taken.is_none() {
        operators.serve();
    }
    started(&listening);
    let (upgrades, asked) = channel(1);
    let _usr2 = AbortOnDrop(tokio::spawn(upgrade_on_signal(upgrades.clone())?));

    let serve = async {
        let enrolment = enrolment(&config, &state, &keys).await?;
        let (lost, mut is_lost) = unbounded_channel();
        let parts = Parts { kind: resolved.kind, options, clock, published, lost };
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let identity = keys.binder_identity(&enrolment);
        let frozen = taken.as_ref().map(Taken::ready).transpose()?;
        // What control said until the old binder stopped.
        let told = state.told(&enrolment.root)?;
        let begin = match (&taken, frozen) {
            (Some(taken), Some(frozen)) => {
                Begin::go_on(taken, &frozen, &enrolment, &told, identity, seed, clock)?
            }
            _ => Begin::fresh(&estate, identity, seed, clock)?,
        };
        parts.published.has_control.store(begin.has_control, Ordering::Relaxed);
        let threads = parts.start(&config, &enrolment, begin, sockets)?;
        if let Some(taken) = &taken {
            if threads.wakers.len() < config.shards {
                let failure = is_lost.recv().await;
                return Err(failure.expect("a shard that did not open says why"));
            }
            taken.armed()?;
            state.lock().claim();
            operators.serve();
        }
        threads.binder_gate.reopen();
        let published = parts.published.clone();
        let orders = threads.orders.clone();
        let serving = Serving {
            relay: enrolment.relay.0,
            pool: enrolment.pool.0,
            orders: orders.clone(),
            upgrades,
        };
        admin.serving.set(serving).expect("set here alone");
        let kept = Kept::new(state, told, published.clone());
        let link = Link::new(kept, keys, enrolment, orders, published, &config);
        link.recall().await;
        let advertise: Vec<_> = config.advertised().map(|address| address.to_string()).collect();
        tracing::info!(
            relay = enrolment.relay.0,
            shards = config.shards,
            advertise = advertise.join(","),
            took_over = taken.is_some(),
            "serving"
        );
        let _notify = AbortOnDrop(tokio::spawn(notifier.clone().follow(health)));
        let running = threads.running(estate, parts.published.clone(), notifier.clone())?;
        tokio::select! {
            never = link.follow(&config) => match never {},
            Some(failure) = is_lost.recv() => Err(failure),
            () = offer_upgrades(running, asked, || operators.let_go()) => Ok(()),
        }
    };
    tokio::select! {
        end = serve => end,
        () = stop => {
            tracing::info!("stopping");
            Notifier::from_environment().stopping();
            Ok(())
        }
    }
}

async fn metrics_listener(
    config: &Config,
    taken: Option<&mut Taken>,
) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = config.metrics_listen else { return Ok(None) };
    let failure = |source| Failure::BindMetrics { address, source };
    if let Some(listener) = taken.and_then(|taken| taken.listener(METRICS)) {
        let listener = TcpListener::from_std(listener.into()).map_err(failure)?;
        let bound = listener.local_addr().map_err(failure)?;
        if bound == address || (address.port() == 0 && bound.ip() == address.ip()) {
            return Ok(Some(listener));
        }
    }
    TcpListener::bind(address).await.map(Some).map_err(failure)
}

fn admin_socket(
    config: &Config,
    taken: Option<&mut Taken>,
) -> Result<Option<AdminSocket>, Failure> {
    let Some(path) = config.admin_socket.as_deref() else { return Ok(None) };
    let failure = |source| Failure::BindAdmin { path: path.to_owned(), source };
    let listener = taken.and_then(|taken| taken.listener(ADMIN));
    let adopted = listener.map(|listener| AdminSocket::adopt(path, listener)).transpose();
    match adopted.map_err(|error| failure(error.into()))?.flatten() {
        Some(socket) => Ok(Some(socket)),
        None => AdminSocket::bind(path).map(Some).map_err(failure),
    }
}

/// SIGUSR2 upgrades; what comes of it is in the log.
fn upgrade_on_signal(upgrades: Upgrades) -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut signals = signal(SignalKind::user_defined2()).context("catching SIGUSR2")?;
    Ok(async move {
        while signals.recv().await.is_some() {
            let (answer, _) = oneshot::channel();
            if upgrades.send(answer).await.is_err() {
                return;
            }
        }
    })
}

type Listening = (Option<TcpListener>, Option<AdminSocket>, Arc<Health>, Arc<Admin>);

/// The listeners for operators, which only one process at a time answers at.
struct Operators {
    admin_stays: Option<Arc<AtomicBool>>,
    waiting: Mutex<Option<Listening>>,
    tasks: Mutex<Vec<AbortOnDrop<()>>>,
}

impl Operators {
    /// Begins to answer; once.
    fn serve(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((metrics, socket, health, admin)) = waiting.take() else { return };
        let metrics = metrics.map(|listener| {
            AbortOnDrop(tokio::spawn(async move {
                http::serve(listener, health).await;
            }))
        });
        let socket = socket.map(|socket| {
            AbortOnDrop(tokio::spawn(async move {
                admin::serve(socket, admin).await;
            }))
        });
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.extend(metrics.into_iter().chain(socket));
    }

    /// Another process answers.
    fn let_go(&self) {
        if let Some(stays) = &self.admin_stays {
            stays.store(true, Ordering::Relaxed);
        }
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn log_sockets(sockets: &Sockets) {
    for (id, address) in sockets.locals() {
        let (gro, gso) = sockets.offloads(id);
        let (receive_buffer, send_buffer) = sockets.buffer_sizes(id).unwrap_or_default();
        tracing::info!(%address, receive_buffer, send_buffer, gro, gso, "listening");
    }
}

/// The file of this program, or of the one that was installed in its place.
fn program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    // The kernel marks a file that was replaced (proc_pid_exe(5)).
    let replaced = path.as_os_str().as_bytes().strip_suffix(b" (deleted)");
    Ok(replaced.map_or_else(|| path.clone(), |path| OsStr::from_bytes(path).into()))
}

/// What binder and shards begin with.
struct Begin {
    core: Binder,
    reader: Reader,
    shards: Vec<ShardState>,
    waiting: Waiting,
    sent: u64,
    send_failed: u64,
    has_control: bool,
    binder_gate: Arc<Gate<FrozenBinder>>,
}

impl Begin {
    fn fresh(
        estate: &Estate,
        identity: Identity,
        seed: [u8; 32],
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let memory = &estate.memory;
        let (writer, reader) = table::create(memory.table.words(), estate.capacity)
            .context("beginning the lease table")?;
        let core = Binder::new_in(memory.binder.words(), identity, writer, seed, clock.now())
            .context("beginning the binder")?;
        Ok(Self {
            core,
            reader,
            shards: Vec::new(),
            waiting: Waiting::default(),
            sent: 0,
            send_failed: 0,
            has_control: false,
            binder_gate: Arc::new(Gate::open()),
        })
    }

    /// With what the process before leaves, whose shards stop on the way. The binder waits.
    fn go_on(
        taken: &Taken,
        frozen: &FrozenBinder,
        enrolment: &Enrolment,
        told: &Told,
        identity: Identity,
        seed: [u8; 32],
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let memory = &taken.memory;
        let (writer, reader) = table::adopt(memory.table.words())?;
        let words = memory.binder.words();
        let mut core = Binder::thaw(&frozen.core, words, identity, writer, seed, clock.now())?;
        if let Some(map) = told.relay_map(&enrolment.root) {
            core.set_signing_keys(ticket_keys(&map));
        }
        if let Some(certificate) = told.certificate {
            core.set_certificate(certificate);
        }
        let Halted { shards, waiting } = taken.adopted()?;
        Ok(Self {
            core,
            reader,
            shards,
            waiting,
            sent: frozen.sent,
            send_failed: frozen.send_failed,
            has_control: frozen.has_control,
            binder_gate: Arc::new(Gate::closed()),
        })
    }
}

/// What all threads are started with.
struct Parts {
    kind: BackendKind,
    options: Options,
    clock: Clock,
    published: Arc<Published>,
    lost: UnboundedSender<Failure>,
}

impl Parts {
    /// Starts the binder and the shards.
    fn start(
        &self,
        config: &Config,
        enrolment: &Enrolment,
        begin: Begin,
        sockets: Vec<Sockets>,
    ) -> Result<Threads, Failure> {
        let Begin { core, reader, shards, waiting, sent, send_failed, binder_gate, .. } = begin;
        let queues = Arc::new(Queues::new());
        waiting.put(&queues);
        let shard_gate = Arc::new(Gate::open());
        let stop = Arc::new(AtomicBool::new(false));
        let ids: Box<[SocketId]> = sockets[0].locals().map(|(id, _)| id).collect();
        let (sender, orders) = crossbeam::channel::bounded(ORDERS);
        let binder = BinderThread {
            core,
            orders,
            queues: queues.clone(),
            sender: sockets[0].sender().context("duplicating the sockets")?,
            sockets: ids.clone(),
            clock: self.clock,
            published: self.published.clone(),
            sent,
            send_failed,
            gate: binder_gate.clone(),
        };
        binder.publish();
        let binder = self.spawn("binder", &stop, move |stop| {
            binder.run(stop);
            Ok(())
        })?;
        let binder_thread = binder.thread().clone();
        let mut threads = Threads {
            orders: Orders::new(sender, binder_thread.clone()),
            stop,
            wakers: Vec::new(),
            joins: vec![binder],
            binder_gate,
            shard_gate,
            queues: queues.clone(),
        };

        let stun = if config.stun { Stun::Answer } else { Stun::Ignore };
        let cpus = allowed_cpus();
        for (number, sockets) in sockets.into_iter().enumerate() {
            let (kind, options, clock) = (self.kind, self.options.clone(), self.clock);
            let mut core = Shard::new(enrolment.relay, reader.clone(), stun);
            let before = shards.get(number).cloned();
            let gate = threads.shard_gate.clone();
            let (ids, queues, binder) = (ids.clone(), queues.clone(), binder_thread.clone());
            let cpu = (!cpus.is_empty()).then(|| cpus[number % cpus.len()]);
            let (opened, is_open) = mpsc::sync_channel(1);
            let join = self.spawn(&format!("shard-{number}"), &threads.stop, move |stop| {
                pin(cpu);
                let mut backend = Backend::open(kind, sockets, &options)?;
                let view = Arc::new(ShardView::new(backend.counters()));
                if let Some(before) = before {
                    core.resume(before.counters);
                    backend.resume(&before.kernel);
                    view.resume(&before.counters);
                }
                // The other end waits for exactly this.
                let _ = opened.send((backend.waker(), view.clone()));
                let pass = Pass::default();
                let mut relayer =
                    Relayer { core, sockets: ids, queues, binder, clock, view, pass, number, gate };
                forward(&mut backend, &mut relayer, stop).context("receiving")
            })?;
            threads.joins.push(join);
            // When the thread could not open its back end, `lost` says why.
            if let Ok((waker, view)) = is_open.recv() {
                threads.wakers.push(waker);
                self.published.add_shard(view);
            }
        }
        Ok(threads)
    }

    /// Starts a thread whose end before the relay's stop is a failure.
    fn spawn(
        &self,
        name: &str,
        stop: &Arc<AtomicBool>,
        body: impl FnOnce(&AtomicBool) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<JoinHandle<()>> {
        let (name, lost, stop) = (name.to_owned(), self.lost.clone(), Arc::clone(stop));
        thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let guard = Alarm { name, lost, stop };
                if let Err(error) = body(&guard.stop) {
                    let failure = error.context(guard.name.clone());
                    // The slow side is gone only when the relay stops.
                    let _ = guard.lost.send(Failure::Other(failure));
                }
            })
            .context("starting a thread")
    }
}

/// Says so when a thread ends while the relay runs, a panic included.
struct Alarm {
    name: String,
    lost: UnboundedSender<Failure>,
    stop: Arc<AtomicBool>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if !self.stop.load(Ordering::Relaxed) {
            let failure = anyhow::anyhow!("the thread {} has ended: a bug", self.name);
            let _ = self.lost.send(Failure::Other(failure));
        }
    }
}

/// The running threads; dropping it stops and joins them.
struct Threads {
    orders: Orders,
    stop: Arc<AtomicBool>,
    wakers: Vec<Waker>,
    joins: Vec<JoinHandle<()>>,
    binder_gate: Arc<Gate<FrozenBinder>>,
    shard_gate: Arc<Gate<ShardState>>,
    queues: Arc<Queues>,
}

impl Threads {
    /// What another process can take over, once all shards run.
    fn running(
        &self,
        estate: Estate,
        published: Arc<Published>,
        notifier: Notifier,
    ) -> anyhow::Result<Running> {
        Ok(Running {
            estate,
            binder: self.binder_gate.clone(),
            shards: self.shard_gate.clone(),
            binder_thread: self.orders.binder(),
            wakers: self.wakers.clone(),
            queues: self.queues.clone(),
            published,
            program: program().context("finding this program's file")?,
            arguments: std::env::args_os().skip(1).collect(),
            notifier,
        })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wakers.iter().for_each(Waker::wake);
        for join in self.joins.drain(..) {
            join.thread().unpark();
            // A panic was reported when it happened.
            let _ = join.join();
        }
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The CPUs this process may use.
fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// A thread that cannot be pinned works all the same.
fn pin(cpu: Option<usize>) {
    let Some(cpu) = cpu else { return };
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(cpu, %error, "a shard is not pinned");
    }
}
