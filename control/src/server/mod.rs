//! The process's outside: listeners, connections, the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lanrage_proto::bytes::encode_base64;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::api::{Api, router};
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::Failure;
use crate::network::Shared;
use crate::service::{Service, Settings};
use crate::state::{Lock, StateDir};
use crate::stopping::Stopping;

/// Accepts TLS connections and serves HTTP on them.
mod connections;
/// Health and metrics for operators.
mod metrics;
/// The certificate and what TLS allows.
mod tls;

const JOB_PERIOD: Duration = Duration::from_secs(1);
/// What fails every second, as on a full disk, is logged this often.
const FAILURE_LOG_PERIOD: Duration = Duration::from_secs(60);
/// Streams and requests have this long to end.
const STOP_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A running service.
#[derive(Debug)]
pub struct Server {
    service: Arc<Service>,
    addresses: Vec<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
    connections: Shared,
    jobs: JoinHandle<()>,
    _lock: Lock,
}

impl Server {
    /// Starts to serve; a state directory that is not there is made.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn start(config: &Config, clock: Clock) -> Result<Self, Failure> {
        let state = StateDir::open_or_create(&config.dir).await?;
        let root = state.root_hash();
        tracing::info!(
            dir = %config.dir.display(),
            root = encode_base64(&root.0),
            server = config.server_address(root).ok().map(|address| address.to_string()),
            "state directory, root key hash, server address"
        );
        let lock = state.lock()?;
        let store = state.open_store(&lock).await?;
        let settings = Settings {
            ticket_lifetime_s: config.ticket_lifetime_s,
            party_relays: config.party_relays.into(),
            requests_per_minute: config.requests_per_minute,
        };
        let tls = tls::server_config(state.root(), clock.now())?;
        let service = Service::start(store, state.root().clone(), settings, clock).await?;

        let stopping = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let mut addresses = Vec::new();
        let connections = connections::places(config.connections_max);
        let api = Api { service: Arc::clone(&service), stopping: Stopping::of(&stopping) };
        let routes = router(api);
        for address in &config.listen {
            let listener = match bind(*address) {
                Err(failure) if config.listen_is_default && lacks_family(&failure) => {
                    tracing::warn!(%failure, "the kernel lacks this address family: going on without");
                    continue;
                }
                bound => bound?,
            };
            addresses.push(listener.local_addr().context("asking for the bound address")?);
            tasks.spawn(connections::serve(
                listener,
                Arc::clone(&tls),
                routes.clone(),
                connections.clone(),
                Stopping::of(&stopping),
            ));
        }
        if addresses.is_empty() {
            return Err(anyhow::anyhow!("the kernel has neither IPv4 nor IPv6").into());
        }
        let mut metrics_address = None;
        if let Some(address) = config.metrics_listen {
            let listener = bind(address)?;
            metrics_address = listener.local_addr().ok();
            tasks.spawn(metrics::serve(listener, Arc::clone(&service), Stopping::of(&stopping)));
        }
        let jobs = tokio::spawn(run_jobs(Arc::clone(&service), Stopping::of(&stopping)));
        Ok(Self {
            service,
            addresses,
            metrics_address,
            stopping,
            tasks,
            connections,
            jobs,
            _lock: lock,
        })
    }

    /// Where it listens, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where health and metrics are.
    pub const fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Does at once what the clock has made due.
    ///
    /// # Errors
    /// The store failed.
    pub async fn run_jobs(&self) -> Result<(), Failure> {
        Ok(self.service.run_jobs().await?)
    }

    /// Says goodbye on all streams, ends, and closes the database.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        let all_ended = async {
            while self.tasks.join_next().await.is_some() {}
            // Streams outlive the tasks of the connections that they came by.
            self.connections.unused().await;
            // Ends by itself; a panic in it has been logged.
            let _ended = (&mut self.jobs).await;
        };
        if timeout(STOP_TIMEOUT, all_ended).await.is_err() {
            self.jobs.abort();
            self.tasks.shutdown().await;
        }
        // Bounded too: a request that is still running holds a database connection.
        let _closed = timeout(Duration::from_millis(300), self.service.store.close()).await;
    }
}

async fn run_jobs(service: Arc<Service>, mut stopping: Stopping) {
    let mut ticks = interval(JOB_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut logged: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stopping.begun() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = service.run_jobs().await {
            if logged.is_none_or(|at| at.elapsed() >= FAILURE_LOG_PERIOD) {
                tracing::error!(%error, "a periodic job failed; it is tried again every second");
                logged = Some(Instant::now());
            }
            ::metrics::counter!("lanrage_control_store_errors_total").increment(1);
        }
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let bound = || {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A restart must not wait for old connections in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    bound().map_err(|reason| Failure::Bind { address, reason })
}

/// Whether the kernel cannot make sockets of the address's family at all (socket(2)).
fn lacks_family(failure: &Failure) -> bool {
    let reason = match failure {
        Failure::Bind { reason, .. } => reason.raw_os_error(),
        Failure::Configuration(_) | Failure::State(_) | Failure::Other(_) => None,
    };
    reason == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `run` without `--listen` failed on hosts whose kernel has no IPv6.
    #[test]
    fn regression_only_a_missing_family_is_left_out() {
        let failure = |errno: rustix::io::Errno| Failure::Bind {
            address: SocketAddr::from(([0_u16; 8], 443)),
            reason: errno.into(),
        };
        assert!(lacks_family(&failure(rustix::io::Errno::AFNOSUPPORT)));
        assert!(!lacks_family(&failure(rustix::io::Errno::ADDRINUSE)));
        assert!(!lacks_family(&failure(rustix::io::Errno::ACCESS)));
    }
}
