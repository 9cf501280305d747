//! The listeners for operators, and which process answers at them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::admin::{self, Admin, AdminSocket};
use crate::config::Config;
use crate::failure::Failure;
use crate::handover::{ADMIN, METRICS, Taken, Upgrades};
use crate::http::{self, Health};
use crate::threads::AbortOnDrop;

pub(crate) async fn metrics_listener(
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

pub(crate) fn admin_socket(
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
pub(crate) fn upgrade_on_signal(
    upgrades: Upgrades,
) -> anyhow::Result<impl Future<Output = ()> + Send> {
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

pub(crate) type Listening = (Option<TcpListener>, Option<AdminSocket>, Arc<Health>, Arc<Admin>);

/// The listeners for operators, which only one process at a time answers at.
pub(crate) struct Operators {
    admin_stays: Option<Arc<AtomicBool>>,
    waiting: Mutex<Option<Listening>>,
    tasks: Mutex<Vec<AbortOnDrop<()>>>,
}

impl Operators {
    /// Does not answer yet.
    pub(crate) fn new(listening: Listening) -> Self {
        let admin_stays = listening.1.as_ref().map(|socket| socket.stays.clone());
        Self { admin_stays, waiting: Mutex::new(Some(listening)), tasks: Mutex::default() }
    }

    /// Begins to answer; once.
    pub(crate) fn serve(&self) {
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
    pub(crate) fn let_go(&self) {
        if let Some(stays) = &self.admin_stays {
            stays.store(true, Ordering::Relaxed);
        }
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
