use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use lanrage_proto::DeviceKey;
use lanrage_proto::map::TlsAccess;
use lanrage_relay_core::Classes;
use lanrage_relay_uring::{BackendKind, GsoSwitch, GsoVerdict, Options, Sockets, probe};
use tokio::sync::mpsc::{channel, unbounded_channel};

use crate::admin::{Admin, KeptBans, Serving};
use crate::clock::{Clock, unix_s};
use crate::config::Config;
use crate::control::Link;
use crate::enrol::enrolment;
use crate::failure::Failure;
use crate::handover::{self, ADMIN, Estate, METRICS, Memory, Taken, offer_upgrades};
use crate::http::Health;
use crate::kept::Kept;
use crate::mesh::{Mesh, Sources};
use crate::metrics::Facts;
use crate::operators::{Operators, admin_socket, metrics_listener, upgrade_on_signal};
use crate::published::Published;
use crate::state::StateDir;
use crate::steering::Steered;
use crate::streams::Listeners;
use crate::systemd::Notifier;
use crate::threads::{AbortOnDrop, Begin, Parts};

/// What a relay that has started serves.
#[derive(Clone, Debug)]
pub struct Started {
    /// UDP addresses, with the ports the kernel chose.
    pub listen: Vec<SocketAddr>,
    /// TCP addresses for streams.
    pub streams: Vec<SocketAddr>,
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
    stop: impl AsyncFnMut() -> Stop,
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
    mut stop: impl AsyncFnMut() -> Stop,
    started: impl FnOnce(&Started),
    taken: &mut Option<Taken>,
) -> Result<(), Failure> {
    let clock = match taken {
        Some(taken) => Clock::since(taken.clock_origin_ns),
        None => Clock::start(),
    };
    let state = Arc::new(match taken.as_mut().and_then(|taken| taken.lock.take()) {
        Some(lock) => StateDir::adopt(&config.state_dir, lock)?,
        None => StateDir::open(&config.state_dir)?,
    });
    let keys = state.keys()?;
    let options = Options { gso: GsoSwitch::new(config.gso.into()), ..Options::default() };
    let resolved =
        probe::resolve(config.backend.into(), &options).context("opening the back end")?;
    tracing::info!(backend = resolved.kind.as_str(), reason = resolved.reason, "back end");
    let gso = judge_gso(&options.gso);
    let steered = match taken {
        Some(taken) => taken.steered.take().context("sockets were taken twice")?,
        None => Steered::bind(&config.listen, config.shards, config.steering)?,
    };
    let listeners = Listeners::open(&config.stream_listen, taken.as_mut())?;
    let metrics = metrics_listener(&config, taken.as_mut()).await?;
    let admin_socket = admin_socket(&config, taken.as_mut())?;
    let sockets = &steered.shards[0];
    let listening = Started {
        listen: sockets.locals().map(|(_, address)| address).collect(),
        streams: listeners.addresses().collect(),
        metrics: metrics.as_ref().and_then(|listener| listener.local_addr().ok()),
        backend: resolved.kind,
    };
    log_sockets(sockets);
    listening.streams.iter().for_each(|address| tracing::info!(%address, "listening for streams"));

    let published = Arc::new(Published::default());
    let facts = Facts {
        backend: resolved.kind.as_str(),
        steering: steered.state.as_str(),
        gso: gso.as_str(),
        gso_switch: options.gso.clone(),
        started_at: unix_s().saturating_sub(clock.ms() / 1_000),
        capacity: config.capacity.leases,
        listen: listening.listen.clone(),
    };
    let receiving = config.shards + usize::from(steered.control.is_some());
    let has_streams = !listeners.is_empty();
    let health = Arc::new(Health {
        published: published.clone(),
        facts,
        clock,
        threads: receiving,
        has_streams,
    });
    let admin = Arc::new(Admin::new(health.clone(), options.gso.clone()));
    let notifier = Notifier::from_environment();
    let mut estate = Estate {
        listen: config.listen.clone(),
        shards: config.shards,
        steering: steered.state.as_str().to_owned(),
        sockets: steered.duplicate().context("duplicating the sockets")?,
        capacity: config.capacity,
        memory: match taken {
            Some(taken) => taken.memory.clone(),
            None => Memory::new(config.capacity).context("allocating the lease table")?,
        },
        lock: state.lock().duplicate().context("duplicating the lock")?,
        listeners: Vec::new(),
        clock_origin_ns: clock.origin_ns(),
    };
    let mut name = |name: String, listener: BorrowedFd<'_>| -> anyhow::Result<()> {
        let listener = listener.try_clone_to_owned().context("duplicating a listener")?;
        estate.listeners.push((name, listener));
        Ok(())
    };
    if let Some(listener) = &metrics {
        name(METRICS.to_owned(), listener.as_fd())?;
    }
    if let Some(socket) = &admin_socket {
        name(ADMIN.to_owned(), socket.listener.as_fd())?;
    }
    listeners.named().try_for_each(|(stream, listener)| name(stream, listener))?;
    let operators = Operators::new((metrics, admin_socket, health.clone(), admin.clone()));
    if taken.is_none() {
        operators.serve();
    }
    started(&listening);
    let (upgrades, asked) = channel(1);
    let _usr2 = AbortOnDrop(tokio::spawn(upgrade_on_signal(upgrades.clone())?));

    let serve = async {
        let enrolment = enrolment(&config, &state, &keys).await?;
        let (lost, mut is_lost) = unbounded_channel();
        let advertised: Vec<_> = config.advertised().collect();
        let sources = Sources::new(&listening.listen, &advertised);
        let mesh = Arc::new(Mesh::new(keys.roster(&enrolment), sources));
        if let Some(map) = state.told(&enrolment.root)?.relay_map(&enrolment.root) {
            // Before anybody receives: frames of these relays may wait in the sockets.
            mesh.set_map(&map);
        }
        let parts =
            Parts { kind: resolved.kind, options, clock, published, lost, mesh: mesh.clone() };
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let identity = keys.binder_identity(&enrolment);
        let frozen = taken.as_ref().map(Taken::ready).transpose()?;
        // What control said until the old binder stopped.
        let told = state.told(&enrolment.root)?;
        parts.published.heard_at.store(state.told_at(), Ordering::Relaxed);
        let bans = state.bans()?;
        let classes = Classes::new(config.rate_classes.iter().copied());
        let with = (identity, classes, seed, clock);
        let mut begin = match (&taken, frozen) {
            (Some(taken), Some(frozen)) => Begin::go_on(taken, &frozen, &enrolment, &told, with)?,
            _ => Begin::fresh(&estate, with)?,
        };
        begin.ban(&bans);
        begin.publish(&parts.published);
        let exits_drained = begin.exits_drained;
        let key = DeviceKey(keys.stream_key().verifying_key().to_bytes());
        let tls = listeners.port().map(|port| TlsAccess { port, key });
        let threads = parts.start(&config, &keys, &enrolment, begin, steered, listeners)?;
        if let Some(taken) = &taken {
            if !threads.are_open(receiving) {
                let failure = is_lost.recv().await;
                return Err(failure.expect("a shard that did not open says why"));
            }
            taken.armed()?;
            state.lock().claim();
            operators.serve();
        }
        threads.begin_binding();
        let published = parts.published.clone();
        let orders = threads.orders();
        let serving = Serving {
            relay: enrolment.relay.0,
            pool: enrolment.pool.0,
            orders: orders.clone(),
            bans: KeptBans::new(state.clone(), bans),
            upgrades,
        };
        admin.serving.set(serving).expect("set here alone");
        // From here on it can be found out whether the drain is over.
        parts.published.exits_drained.store(exits_drained, Ordering::Relaxed);
        let kept = Kept::new(state, told, published.clone());
        let link =
            Link::new(kept, keys, enrolment, (orders, mesh.clone()), tls, published, &config);
        link.recall().await;
        let advertise: Vec<_> = advertised.iter().map(SocketAddr::to_string).collect();
        tracing::info!(
            relay = enrolment.relay.0,
            shards = config.shards,
            advertise = advertise.join(","),
            took_over = taken.is_some(),
            "serving"
        );
        let _notify = AbortOnDrop(tokio::spawn(notifier.clone().follow(health)));
        let running =
            threads.running(estate, parts.published.clone(), mesh.clone(), notifier.clone())?;
        tokio::select! {
            never = link.follow(&config) => match never {},
            never = mesh.follow_clock() => match never {},
            Some(failure) = is_lost.recv() => Err(failure),
            () = offer_upgrades(running, asked, || operators.let_go()) => Ok(()),
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
            Notifier::from_environment().stopping();
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
