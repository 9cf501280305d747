use lanrage_proto::api::Change;
use lanrage_proto::{DeviceKey, RelayId, SessionId};

use super::Service;
use super::absence::Moment;
use crate::domain::limits::{COPIES_KEPT_S, NOTE_PERIOD_S, TOMBSTONE_S};
use crate::domain::relays::{Health, revise};
use crate::store::{StoreError, invites, kicks, parties, pool, relays};

/// How often what has no hurry is done, and what is timed in weeks.
const SLOW_PERIOD_S: u64 = 60;
/// See [`SLOW_PERIOD_S`].
const SLOWEST_PERIOD_S: u64 = 3_600;
/// Parties whose relay lists change in one transaction.
const LISTS_AT_ONCE: u32 = 256;

/// What the jobs have already seen.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pool_version: u64,
    health: Vec<(RelayId, Health)>,
    slow_done_s: Option<u64>,
    slowest_done_s: Option<u64>,
    noted_s: Option<u64>,
    at_work: Option<Moment>,
}

impl Service {
    /// Does what time makes due; called every second.
    pub(crate) async fn run_jobs(&self) -> Result<(), StoreError> {
        self.run_due_jobs().await.inspect_err(|_| self.store.set_failed(true))
    }

    async fn run_due_jobs(&self) -> Result<(), StoreError> {
        let mut progress = self.jobs.lock().await;
        self.tell_turns().await?;

        let version = pool::load(&mut *self.store.read().await?).await?.version;
        if version != progress.pool_version {
            self.refresh_pool().await?;
            progress.pool_version = version;
        }

        let standings = self.fleet.standings(self.clock.uptime_s());
        let health: Vec<_> = standings.iter().map(|s| (s.relay, s.health)).collect();
        if health != progress.health {
            self.revise_relay_lists().await?;
            progress.health = health;
        }

        let uptime_s = self.clock.uptime_s();
        let is_due = |done: Option<u64>, period| done.is_none_or(|done| uptime_s >= done + period);
        if is_due(progress.slow_done_s, SLOW_PERIOD_S) {
            self.refresh_pool().await?;
            progress.at_work = Some(self.note_work(progress.at_work).await?);
            self.expire().await?;
            // Only here: control's own absence is taken off first.
            if is_due(progress.slowest_done_s, SLOWEST_PERIOD_S) {
                self.note_seen(&self.hub.connected()).await?;
                self.replace_gone_owners().await?;
                self.forget_abandoned().await?;
                progress.slowest_done_s = Some(uptime_s);
            }
            progress.slow_done_s = Some(uptime_s);
            self.store.set_failed(false);
        }
        // After `note_work`, which reads at the start what the run before has noted.
        if is_due(progress.noted_s, NOTE_PERIOD_S) {
            self.note_pool().await?;
            progress.noted_s = Some(uptime_s);
        }
        Ok(())
    }

    /// Notes, for the next start and for `relay list`, that the service is at work and whom it hears.
    async fn note_pool(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let heard = self.fleet.heard(self.clock.uptime_s());
        let seen = heard.into_iter().map(|(relay, ago_s)| (relay, now.saturating_sub(ago_s)));
        let mut write = self.store.write().await?;
        relays::note_seen(write.db(), seen).await?;
        pool::set_alive(write.db(), now).await?;
        write.commit().await?;
        Ok(())
    }

    /// Tells the others that a device has come online or gone offline, unless it has not after all.
    /// When that fails, the next sweep tries again.
    pub(crate) async fn tell_turn(
        &self,
        device: &DeviceKey,
        online: bool,
    ) -> Result<(), StoreError> {
        if !self.hub.turn(device, online) {
            return Ok(());
        }
        let told = self.tell_presence(device).await;
        if told.is_err() {
            self.hub.untold(device, online);
        }
        told
    }

    /// Told before noted: a disk that is full keeps nobody's ghost online.
    async fn tell_turns(&self) -> Result<(), StoreError> {
        let turns = self.hub.sweep(self.clock.uptime_s());
        if turns.is_empty() {
            return Ok(());
        }
        for (device, online) in &turns {
            self.tell_turn(device, *online).await?;
        }
        self.note_seen(&turns.iter().map(|(device, _)| *device).collect::<Vec<_>>()).await
    }

    /// Sends a device's records to its parties; writers are held off for one party at a time.
    async fn tell_presence(&self, device: &DeviceKey) -> Result<(), StoreError> {
        let sessions = parties::of_device(&mut *self.store.read().await?, device).await?;
        for session in sessions {
            let (mut view, _order) = self.store.ordered_view().await?;
            let Some(party) = parties::load(&mut view, session).await? else { continue };
            let Some(me) = party.member_of(device) else { continue };
            self.tell_member(&party, Some(device), me);
        }
        Ok(())
    }

    /// Gives parties other relays for those that are gone, and more when they have too few.
    async fn revise_relay_lists(&self) -> Result<(), StoreError> {
        let standings = self.fleet.standings(self.clock.uptime_s());
        let stays = |relay: &RelayId| {
            standings.iter().any(|s| s.relay == *relay && s.health != Health::Gone)
        };
        let wanted = self.settings.party_relays;
        let mut used = parties::relays_in_use(&mut *self.store.read().await?).await?;
        used.retain(|relay| !stays(relay));
        let mut after: Option<SessionId> = None;
        loop {
            let mut write = self.store.write().await?;
            let sessions =
                parties::with_relay_trouble(write.db(), after, wanted, &used, LISTS_AT_ONCE)
                    .await?;
            after = sessions.last().copied();
            let mut changed = Vec::new();
            for session in sessions {
                let Some(party) = parties::load(write.db(), session).await? else { continue };
                let relays = revise(&party.relays, &standings, wanted);
                if relays != party.relays {
                    parties::set_relays(write.db(), session, &relays).await?;
                    changed.push((party, relays));
                }
            }
            let _committed = write.commit().await?;
            for (party, relays) in changed {
                self.tell(&party, None, &Change::Relays { session: party.session, relays });
            }
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Deletes what has had its time.
    async fn expire(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut write = self.store.write().await?;
        invites::expire(write.db(), now, now.saturating_sub(TOMBSTONE_S)).await?;
        kicks::expire(write.db(), now, now.saturating_sub(COPIES_KEPT_S)).await?;
        relays::expire_tokens(write.db(), now).await?;
        write.commit().await?;
        Ok(())
    }
}
