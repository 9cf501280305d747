//! What the service manager is told (sd_notify(3)), and what it asks for.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use crate::http::Health;

/// How often progress is looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// The way to the service manager, if one has started this process.
#[derive(Clone, Debug)]
pub(crate) struct Notifier(Option<Arc<(UnixDatagram, SocketAddr)>>);

impl Notifier {
    /// By `NOTIFY_SOCKET`: a path, or an abstract name behind `@`.
    pub(crate) fn from_environment() -> Self {
        Self(std::env::var("NOTIFY_SOCKET").ok().and_then(|name| {
            let address = match name.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&name),
            };
            Some(Arc::new((UnixDatagram::unbound().ok()?, address.ok()?)))
        }))
    }

    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    pub(crate) fn reloading(&self) {
        let now_us = crate::clock::Clock::start().origin_ns() / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}"));
    }

    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Another process is the service from now on.
    pub(crate) fn main_pid(&self, pid: u32) {
        self.tell(&format!("MAINPID={pid}"));
    }

    fn tell(&self, state: &str) {
        if let Some((socket, address)) = self.0.as_deref() {
            // A service manager that does not listen must not hold the relay up.
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }

    /// Says READY once every shard and the binder turn, and feeds the watchdog for as long as all of
    /// them do.
    pub(crate) async fn follow(self, health: Arc<Health>) {
        let fed_every = watchdog();
        let mut is_ready = false;
        let mut fed_at = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(PERIOD).await;
            if health.is_turning().is_err() {
                continue;
            }
            if !std::mem::replace(&mut is_ready, true) {
                self.ready();
            }
            if fed_every.is_some_and(|every| fed_at.elapsed() >= every) {
                fed_at = tokio::time::Instant::now();
                self.tell("WATCHDOG=1");
            }
        }
    }
}

/// A third of `WATCHDOG_USEC`, unless that is another process's (sd_watchdog_enabled(3)).
fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let limit = number("WATCHDOG_USEC").filter(|limit| *limit > 0 && is_ours)?;
    Some(Duration::from_micros(limit / 3))
}
