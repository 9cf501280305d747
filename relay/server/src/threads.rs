//! The relay's threads: what they begin with, how they start, stop and hand over.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use lanrage_relay_core::{Binder, Classes, Identity, Shard, Stun};
use lanrage_relay_table::{self as table, Reader};
use lanrage_relay_uring::{Backend, BackendKind, Options, SocketId, Waker};
use tokio::sync::mpsc::UnboundedSender;

use crate::admin::api::BanRow;
use crate::binder::{BinderThread, Orders};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::ticket_keys;
use crate::egress::HostEgress;
use crate::failure::Failure;
use crate::handover::{Estate, FrozenBinder, Gate, Halted, Running, ShardState, Taken, Waiting};
use crate::mesh::Mesh;
use crate::published::{Published, ShardView};
use crate::queues::Queues;
use crate::role::{Role, settle_binder};
use crate::shard::{Pass, Relayer, forward};
use crate::state::{Enrolment, Keys, Told};
use crate::steering::Steered;
use crate::streams::{Listeners, Outlet, StreamsThread, server_config};
use crate::systemd::Notifier;

/// Orders from the slow side that may wait for the binder.
const ORDERS: usize = 64;

/// What binder and shards begin with.
pub(crate) struct Begin {
    core: Binder,
    reader: Reader,
    classes: Classes,
    shards: Vec<ShardState>,
    waiting: Waiting,
    sent: u64,
    send_failed: u64,
    has_control: bool,
    pub(crate) exits_drained: bool,
    upgrades: u64,
    upgrades_failed: u64,
    binder_gate: Arc<Gate<FrozenBinder>>,
}

impl Begin {
    pub(crate) fn fresh(
        estate: &Estate,
        (identity, classes, seed, clock): (Identity, Classes, [u8; 32], Clock),
    ) -> anyhow::Result<Self> {
        let memory = &estate.memory;
        let (writer, reader) = table::create(memory.table.words(), estate.capacity)
            .context("beginning the lease table")?;
        let core = Binder::new_in(
            memory.binder.words(),
            identity,
            writer,
            classes.clone(),
            seed,
            clock.now(),
        )
        .context("beginning the binder")?;
        Ok(Self {
            core,
            reader,
            classes,
            shards: Vec::new(),
            waiting: Waiting::default(),
            sent: 0,
            send_failed: 0,
            has_control: false,
            exits_drained: false,
            upgrades: 0,
            upgrades_failed: 0,
            binder_gate: Arc::new(Gate::open()),
        })
    }

    /// Whom the operator does not serve.
    pub(crate) fn ban(&mut self, bans: &[BanRow]) {
        self.core.set_bans(bans.iter().map(|row| row.subject.ban()));
    }

    pub(crate) fn publish(&self, published: &Published) {
        published.has_control.store(self.has_control, Ordering::Relaxed);
        published.upgrades.store(self.upgrades, Ordering::Relaxed);
        published.upgrades_failed.store(self.upgrades_failed, Ordering::Relaxed);
    }

    /// With what the process before leaves, whose shards stop on the way. The binder waits.
    pub(crate) fn go_on(
        taken: &Taken,
        frozen: &FrozenBinder,
        enrolment: &Enrolment,
        told: &Told,
        (identity, classes, seed, clock): (Identity, Classes, [u8; 32], Clock),
    ) -> anyhow::Result<Self> {
        let memory = &taken.memory;
        let (writer, reader) = table::adopt(memory.table.words())?;
        let words = memory.binder.words();
        let mut core = Binder::thaw(
            &frozen.core,
            words,
            identity,
            writer,
            classes.clone(),
            seed,
            clock.now(),
        )?;
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
            classes,
            shards,
            waiting,
            sent: frozen.sent,
            send_failed: frozen.send_failed,
            has_control: frozen.has_control,
            exits_drained: frozen.exits_drained,
            upgrades: frozen.upgrades + 1,
            upgrades_failed: frozen.upgrades_failed,
            binder_gate: Arc::new(Gate::closed()),
        })
    }
}

/// What all threads are started with.
pub(crate) struct Parts {
    pub(crate) kind: BackendKind,
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) published: Arc<Published>,
    pub(crate) lost: UnboundedSender<Failure>,
    pub(crate) mesh: Arc<Mesh>,
}

impl Parts {
    /// Starts the binder, the shards and the streams.
    pub(crate) fn start(
        &self,
        config: &Config,
        keys: &Keys,
        enrolment: &Enrolment,
        begin: Begin,
        steered: Steered,
        listeners: Listeners,
    ) -> Result<Threads, Failure> {
        let Begin { core, reader, classes, shards: before, waiting, .. } = begin;
        let queues = Arc::new(Queues::new());
        waiting.put(&queues);
        self.published.set_queues(queues.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let outlet = if listeners.is_empty() { Outlet::closed() } else { Outlet::new() };
        let Steered { shards, control, .. } = steered;
        let ids: Box<[SocketId]> = shards[0].locals().map(|(id, _)| id).collect();
        let (sender, orders) = crossbeam::channel::bounded(ORDERS);
        let sending = || shards[0].sender().context("duplicating the sockets");
        let binder = BinderThread {
            core,
            orders,
            queues: queues.clone(),
            sender: sending()?,
            sockets: ids.clone(),
            outlet: outlet.clone(),
            clock: self.clock,
            published: self.published.clone(),
            egress: HostEgress::open(),
            sent: begin.sent,
            send_failed: begin.send_failed,
            gate: begin.binder_gate.clone(),
        };
        binder.publish();
        let binder = self.spawn("binder", &stop, move |stop| {
            settle_binder();
            binder.run(stop);
            Ok(())
        })?;
        let binder_thread = binder.thread().clone();
        let mut threads = Threads {
            orders: Orders::new(sender, binder_thread.clone()),
            stop,
            wakers: Vec::new(),
            streams: (!listeners.is_empty()).then(|| outlet.clone()),
            joins: vec![binder],
            binder_gate: begin.binder_gate,
            shard_gate: Arc::new(Gate::open()),
            queues: queues.clone(),
        };

        if !listeners.is_empty() {
            let number = shards.len() + usize::from(control.is_some());
            let mut core =
                Shard::new(enrolment.relay, reader.clone(), classes.clone(), Stun::Ignore);
            core.join_mesh(shard_number(number)?);
            let streams = StreamsThread {
                listeners,
                tls: server_config(&keys.stream_key())?,
                core,
                mesh: self.mesh.subscribe(),
                sender: sending()?,
                sockets: ids.clone(),
                queues: queues.clone(),
                binder: binder_thread.clone(),
                outlet: outlet.clone(),
                clock: self.clock,
                published: self.published.clone(),
                before: before.get(number).cloned(),
                number,
                gate: threads.shard_gate.clone(),
            };
            threads.joins.push(self.spawn("streams", &threads.stop, |stop| streams.run(stop))?);
        }

        let stun = if config.stun { Stun::Answer } else { Stun::Ignore };
        let cpus = allowed_cpus();
        let count = shards.len();
        for (number, sockets) in shards.into_iter().chain(control).enumerate() {
            let role = if number < count { Role::Shard(number) } else { Role::Control };
            let (kind, options, clock) = (self.kind, self.options.clone(), self.clock);
            let mut core = Shard::new(enrolment.relay, reader.clone(), classes.clone(), stun);
            core.join_mesh(shard_number(number)?);
            let mesh = self.mesh.subscribe();
            let before = before.get(number).cloned();
            let gate = threads.shard_gate.clone();
            let (ids, queues, binder) = (ids.clone(), queues.clone(), binder_thread.clone());
            let (outlet, cpus) = (outlet.clone(), cpus.clone());
            let (opened, is_open) = mpsc::sync_channel(1);
            let join = self.spawn(&role.to_string(), &threads.stop, move |stop| {
                role.settle(&cpus);
                let mut backend = Backend::open(kind, sockets, &options)?;
                let view = Arc::new(ShardView::new(role, backend.counters()));
                if let Some(before) = before {
                    core.resume(before.counters);
                    backend.resume(&before.kernel);
                    view.resume(&before);
                }
                // The other end waits for exactly this.
                let _ = opened.send((backend.waker(), view.clone()));
                let mut relayer = Relayer {
                    core,
                    sockets: ids,
                    queues,
                    binder,
                    outlet,
                    clock,
                    view,
                    mesh,
                    pass: Pass::default(),
                    number,
                    gate,
                };
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
pub(crate) struct Threads {
    orders: Orders,
    stop: Arc<AtomicBool>,
    wakers: Vec<Waker>,
    /// To the streams' thread, if there is one.
    streams: Option<Outlet>,
    joins: Vec<JoinHandle<()>>,
    binder_gate: Arc<Gate<FrozenBinder>>,
    shard_gate: Arc<Gate<ShardState>>,
    queues: Arc<Queues>,
}

impl Threads {
    /// The way to the binder.
    pub(crate) fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// Whether so many threads, the one for control frames among them, have opened their back ends;
    /// if not, `lost` says why.
    pub(crate) fn are_open(&self, receiving: usize) -> bool {
        self.wakers.len() >= receiving
    }

    /// The relay is this process's: the binder may edit the table.
    pub(crate) fn begin_binding(&self) {
        self.binder_gate.reopen();
    }

    /// What another process can take over, once all shards run.
    pub(crate) fn running(
        &self,
        estate: Estate,
        published: Arc<Published>,
        mesh: Arc<Mesh>,
        notifier: Notifier,
    ) -> anyhow::Result<Running> {
        Ok(Running {
            estate,
            binder: self.binder_gate.clone(),
            shards: self.shard_gate.clone(),
            binder_thread: self.orders.binder(),
            wakers: self.wakers.clone(),
            streams: self.streams.clone(),
            queues: self.queues.clone(),
            published,
            mesh,
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

pub(crate) struct AbortOnDrop<T>(pub(crate) tokio::task::JoinHandle<T>);

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

/// The file of this program, or of the one that was installed in its place.
fn program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    // The kernel marks a file that was replaced (proc_pid_exe(5)).
    let replaced = path.as_os_str().as_bytes().strip_suffix(b" (deleted)");
    Ok(replaced.map_or_else(|| path.clone(), |path| OsStr::from_bytes(path).into()))
}

/// Names the counters of a shard's frames to other relays.
fn shard_number(number: usize) -> anyhow::Result<u8> {
    u8::try_from(number).context("more threads than numbers for them: configure fewer shards")
}
