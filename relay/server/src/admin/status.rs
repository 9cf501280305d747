use std::sync::atomic::Ordering;

use super::api::Status;
use super::{Admin, Refused};
use crate::logs;

impl Admin {
    pub(super) async fn status(&self) -> Result<Status, Refused> {
        let serving = self.serving.get();
        let draining = match serving {
            Some(_) => self.draining().await?,
            None => None,
        };
        let health = &self.health;
        let counts = health.published.binder().map(|binder| binder.counts);
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            relay: serving.map(|serving| serving.relay),
            pool: serving.map(|serving| serving.pool),
            uptime_s: health.clock.ms() / 1000,
            backend: health.facts.backend.to_owned(),
            not_ready: health.is_ready().err(),
            control_connected: health.published.has_control.load(Ordering::Relaxed),
            leases: counts.map_or(0, |counts| counts.active as u64),
            leases_pending: counts.map_or(0, |counts| counts.pending as u64),
            leases_capacity: u64::from(health.facts.capacity),
            sessions: counts.map_or(0, |counts| counts.sessions as u64),
            draining,
            bans: if serving.is_some() { self.bans().await?.len() } else { 0 },
            queues: self.queues(),
            log: logs::filter(),
            gso: self.gso.mode().into(),
        })
    }
}
