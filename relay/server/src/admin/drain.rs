use std::sync::atomic::Ordering;
use std::time::Duration;

use lanrage_proto::RelayId;

use super::api::{Drain, Draining};
use super::{Admin, Refused};

/// How often a relay that ends with its drain looks whether it is empty.
const LOOK: Duration = Duration::from_millis(50);

impl Admin {
    pub(super) async fn drain(&self, asked: Drain) -> Result<Draining, Refused> {
        let Drain { deadline_s, next, exit } = asked;
        let serving = self.serving()?;
        if next == Some(serving.relay) {
            return Err(Refused::conflict("the next relay cannot be this one"));
        }
        if deadline_s == 0 {
            return Err(Refused::conflict("the deadline is 1 second away at least"));
        }
        self.drain_within(Duration::from_secs(deadline_s.into()), next.map(RelayId)).await?;
        self.health.published.exits_drained.store(exit, Ordering::Relaxed);
        let drained = self.draining().await?;
        drained.ok_or_else(|| Refused::conflict("another command has ended the drain"))
    }

    pub(super) async fn undrain(&self) -> Result<(), Refused> {
        if self.draining().await?.is_none() {
            return Err(Refused::conflict("the relay does not drain"));
        }
        self.health.published.exits_drained.store(false, Ordering::Relaxed);
        self.ask(|binder, _| binder.undrain()).await?;
        tracing::info!("no longer draining");
        Ok(())
    }

    pub(super) async fn draining(&self) -> Result<Option<Draining>, Refused> {
        let exit = self.health.published.exits_drained.load(Ordering::Relaxed);
        let draining = self.ask(|binder, now| (binder.draining(), now)).await?;
        let (Some(draining), now) = draining else { return Ok(None) };
        Ok(Some(Draining {
            left_s: draining.deadline_ms.saturating_sub(now.ms).div_ceil(1000),
            next: draining.next.map(|relay| relay.0),
            told: draining.told,
            exit,
        }))
    }

    async fn drain_within(&self, within: Duration, next: Option<RelayId>) -> Result<(), Refused> {
        let within_ms = within.as_millis() as u64;
        self.ask(move |binder, now| binder.drain(now, within_ms, next)).await?;
        tracing::info!(seconds = within.as_secs(), "draining");
        Ok(())
    }

    /// Has clients leave and waits until they have, or for `patience`. Without any there is nothing
    /// to wait for.
    pub(crate) async fn leave(&self, patience: Duration) {
        let Ok(counts) = self.ask(|binder, _| binder.counts()).await else { return };
        if patience.is_zero() || counts.active + counts.pending == 0 {
            return;
        }
        if self.drain_within(patience, None).await.is_ok() {
            self.health.published.exits_drained.store(true, Ordering::Relaxed);
            self.ended().await;
        }
    }

    /// Waits until a drain that is to end the relay has done so.
    pub(crate) async fn ended(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.health.published.exits_drained.load(Ordering::Relaxed) {
                continue;
            }
            let look = self.ask(|binder, now| (binder.draining(), binder.counts(), now)).await;
            // A relay that is stopping anyway.
            let Ok((draining, counts, now)) = look else { return };
            let is_over = draining.is_some_and(|draining| now.ms >= draining.deadline_ms);
            if is_over || (draining.is_some() && counts.active + counts.pending == 0) {
                return;
            }
        }
    }
}
