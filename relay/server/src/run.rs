use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use lanrage_relay_core::{Binder, Classes, Shard, Stun};
use lanrage_relay_table as table;
use lanrage_relay_uring::{
    Backend, BackendKind, GsoSwitch, GsoVerdict, Options, SocketId, Sockets, Waker, probe,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::admin::api::BanRow;
use crate::admin::{self, Admin, AdminSocket, KeptBans, Serving};
use crate::binder::{BinderThread, Orders};
use crate::clock::{Clock, unix_s};
use crate::config::Config;
use crate::control::Link;
use crate::enrol::enrolment;
use crate::failure::Failure;
use crate::http::{self, Health};
use crate::kept::Kept;
use crate::metrics::Facts;
use crate::published::{Published, ShardView};
use crate::queues::Queues;
use crate::role::Role;
use crate::shard::{Pass, Relayer, forward};
use crate::state::{Enrolment, Keys, StateDir};
use crate::steering::{Steered, bind_steered};

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

/// How a relay is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Once clients have left for another relay, or the setting `stop_timeout` is over.
    Drained,
    /// Now.
    AtOnce,
}

/// Runs a relay until `stop` says so; asked again, it ends a drain. `started` is called when the addresses are bound; enrolling
/// may still be ahead.
///
/// # Errors
/// See [`Failure`].
pub async fn run(
    config: Config,
    mut stop: impl AsyncFnMut() -> Stop,
    started: impl FnOnce(&Started),
) -> Result<(), Failure> {
    let clock = Clock::start();
    let state = Arc::new(StateDir::open(&config.state_dir)?);
    let keys = state.keys()?;
    let options = Options { gso: GsoSwitch::new(config.gso.into()), ..Options::default() };
    let resolved =
        probe::resolve(config.backend.into(), &options).context("opening the back end")?;
    tracing::info!(backend = resolved.kind.as_str(), reason = resolved.reason, "back end");
    let gso = judge_gso(&options.gso);
    let steered = bind_steered(&config)?;
    let sockets = &steered.shards[0];
    let metrics = match config.metrics_listen {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .map_err(|source| Failure::BindMetrics { address, source })?,
        ),
        None => None,
    };
    let admin_socket = config.admin_socket.as_deref().map(|path| {
        AdminSocket::bind(path)
            .map_err(|source| Failure::BindAdmin { path: path.to_owned(), source })
    });
    let admin_socket = admin_socket.transpose()?;
    let listening = Started {
        listen: sockets.locals().map(|(_, address)| address).collect(),
        metrics: metrics.as_ref().and_then(|listener| listener.local_addr().ok()),
        backend: resolved.kind,
    };
    log_sockets(sockets);

    let published = Arc::new(Published::default());
    let facts = Facts {
        backend: resolved.kind.as_str(),
        steering: steered.state.as_str(),
        gso: gso.as_str(),
        gso_switch: options.gso.clone(),
        started_at: unix_s(),
        capacity: config.capacity.leases,
        listen: listening.listen.clone(),
    };
    let threads = config.shards + usize::from(steered.control.is_some());
    let health = Health { published: published.clone(), facts, clock, threads };
    let health = Arc::new(health);
    let admin = Arc::new(Admin::new(health.clone(), options.gso.clone()));
    let _http = metrics.map(|listener| {
        AbortOnDrop(tokio::spawn(async move {
            http::serve(listener, health).await;
        }))
    });
    let _admin = admin_socket.map(|socket| {
        let admin = admin.clone();
        AbortOnDrop(tokio::spawn(async move {
            admin::serve(socket, admin).await;
        }))
    });
    started(&listening);

    let serve = async {
        let enrolment = enrolment(&config, &state, &keys).await?;
        let told = state.told(&enrolment.root)?;
        published.heard_at.store(state.told_at(), Ordering::Relaxed);
        let (lost, mut is_lost) = unbounded_channel();
        let bans = state.bans()?;
        let parts = Parts { kind: resolved.kind, options, clock, published, lost };
        let threads = parts.start(&config, &keys, &enrolment, steered, &bans)?;
        let published = parts.published.clone();
        let orders = threads.orders.clone();
        let serving = Serving {
            relay: enrolment.relay.0,
            pool: enrolment.pool.0,
            orders: orders.clone(),
            bans: KeptBans::new(state.clone(), bans),
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
            "serving"
        );
        tokio::select! {
            never = link.follow(&config) => match never {},
            Some(failure) = is_lost.recv() => Err(failure),
        }
    };
    let stopping = async {
        if stop().await == Stop::Drained {
            tokio::select! {
                () = admin.leave(config.stop_timeout) => {}
                _ = stop() => {}
            }
        }
    };
    tokio::select! {
        end = serve => end,
        () = stopping => {
            tracing::info!("stopping");
            Ok(())
        }
        () = admin.ended() => {
            tracing::info!("stopping: drained");
            Ok(())
        }
    }
}

/// Finds out whether this kernel can be trusted with segmentation offload.
fn judge_gso(switch: &GsoSwitch) -> GsoVerdict {
    let verdict = GsoVerdict::find();
    switch.judge(&verdict);
    match verdict.is_trusted() {
        true => tracing::info!(reason = %verdict, "segmentation offload is trusted"),
        false => tracing::warn!(reason = %verdict, "segmentation offload is off unless forced"),
    }
    verdict
}

fn log_sockets(sockets: &Sockets) {
    for (id, address) in sockets.locals() {
        let (gro, gso) = sockets.offloads(id);
        let (receive_buffer, send_buffer) = sockets.buffer_sizes(id).unwrap_or_default();
        tracing::info!(%address, receive_buffer, send_buffer, gro, gso, "listening");
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
        keys: &Keys,
        enrolment: &Enrolment,
        Steered { shards, control, .. }: Steered,
        bans: &[BanRow],
    ) -> Result<Threads, Failure> {
        let (writer, reader) = table::new(config.capacity).context("allocating the lease table")?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let classes = Classes::default();
        let identity = keys.binder_identity(enrolment);
        let mut core = Binder::new(identity, writer, classes.clone(), seed, self.clock.now());
        core.set_bans(bans.iter().map(|row| row.subject.ban()));
        let queues = Arc::new(Queues::new());
        self.published.set_queues(queues.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let ids: Box<[SocketId]> = shards[0].locals().map(|(id, _)| id).collect();
        let (sender, orders) = crossbeam::channel::bounded(ORDERS);
        let binder = BinderThread {
            core,
            orders,
            queues: queues.clone(),
            sender: shards[0].sender().context("duplicating the sockets")?,
            sockets: ids.clone(),
            clock: self.clock,
            published: self.published.clone(),
            sent: 0,
            send_failed: 0,
        };
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
        };

        let stun = if config.stun { Stun::Answer } else { Stun::Ignore };
        let cpus = allowed_cpus();
        let count = shards.len();
        for (number, sockets) in shards.into_iter().chain(control).enumerate() {
            let role = if number < count { Role::Shard(number) } else { Role::Control };
            let (kind, options, clock) = (self.kind, self.options.clone(), self.clock);
            let core = Shard::new(enrolment.relay, reader.clone(), classes.clone(), stun);
            let (ids, queues, binder) = (ids.clone(), queues.clone(), binder_thread.clone());
            let (opened, is_open) = mpsc::sync_channel(1);
            let cpus = cpus.clone();
            let join = self.spawn(&role.to_string(), &threads.stop, move |stop| {
                role.settle(&cpus);
                let mut backend = Backend::open(kind, sockets, &options)?;
                let view = Arc::new(ShardView::new(role, backend.counters()));
                // The other end waits for exactly this.
                let _ = opened.send((backend.waker(), view.clone()));
                let pass = Pass::default();
                let mut relayer = Relayer { core, sockets: ids, queues, binder, clock, view, pass };
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
