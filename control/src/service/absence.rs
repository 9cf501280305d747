use std::collections::HashMap;

use lanrage_proto::DeviceKey;
use lanrage_proto::api::Role;

use super::Service;
use super::party::make_owner;
use crate::domain::limits::{
    DEVICE_FORGOTTEN_S, OWN_ABSENCE_MIN_S, OWNER_GONE_S, PARTY_ABANDONED_S,
};
use crate::domain::{MemberRow, role};
use crate::store::{StoreError, devices, invites, kicks, parties, pool};

/// Parties that end in one transaction.
const ENDED_AT_ONCE: u32 = 256;

/// A time by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    unix_s: u64,
    uptime_s: u64,
}

impl Service {
    /// Notes that the service is at work. When it was away since `last` (none: since before its
    /// start), was restored from an old backup, or its clock was set, then nobody could be seen
    /// and nothing fetched in that time: it does not count.
    pub(super) async fn note_work(&self, last: Option<Moment>) -> Result<Moment, StoreError> {
        let now = Moment { unix_s: self.clock.now(), uptime_s: self.clock.uptime_s() };
        let mut write = self.store.write().await?;
        let expected = match last {
            Some(last) => last.unix_s + now.uptime_s.saturating_sub(last.uptime_s),
            None => match pool::alive(write.db()).await? {
                0 => now.unix_s,
                alive => alive,
            },
        };
        if now.unix_s.abs_diff(expected) > OWN_ABSENCE_MIN_S {
            let away_s = now.unix_s.wrapping_sub(expected).cast_signed();
            tracing::warn!(away_s, "control was away or its clock was set: no absence counts");
            devices::shift_seen(write.db(), away_s, now.unix_s).await?;
            kicks::shift_made(write.db(), away_s, now.unix_s).await?;
        }
        pool::set_alive(write.db(), now.unix_s).await?;
        write.commit().await?;
        Ok(now)
    }

    /// A party whose owner had no stream for 30 days gets another, if a member is there.
    pub(super) async fn replace_gone_owners(&self) -> Result<(), StoreError> {
        let gone_since = self.clock.now().saturating_sub(OWNER_GONE_S);
        let orphaned = parties::with_owner_gone(&mut *self.store.read().await?, gone_since).await?;
        for session in orphaned {
            let mut write = self.store.write().await?;
            let Some(party) = parties::load(write.db(), session).await? else { continue };
            let mut seen = HashMap::new();
            for row in party.members() {
                seen.insert(row.device, devices::last_seen(write.db(), &row.device).await?);
            }
            let present = |device: &DeviceKey| {
                self.hub.is_online(device) || seen.get(device).is_some_and(|at| *at >= gone_since)
            };
            let Some(owner) = party.members().find(|row| row.role == Role::Owner) else { continue };
            let successor = role::successor(&party, owner.member, present);
            let worthy = successor.and_then(|member| party.member(member));
            if present(&owner.device) || worthy.is_none_or(|row| !present(&row.device)) {
                continue;
            }
            let successor = worthy.expect("just seen").member;
            let old = MemberRow { role: Role::Member, ..owner.clone() };
            parties::put_member(write.db(), session, &old).await?;
            let new = make_owner(&mut write, &party, successor).await?;
            let _committed = write.commit().await?;
            self.tell_member(&party, None, &old);
            self.tell_member(&party, None, &new);
            tracing::info!(%session, member = new.member.number(), "ownership passed on");
        }
        Ok(())
    }

    /// Ends parties to which nobody has come for a year, and forgets devices that are in none.
    pub(super) async fn forget_abandoned(&self) -> Result<(), StoreError> {
        loop {
            let now = self.clock.now();
            let mut write = self.store.write().await?;
            // Whoever comes back at this moment is there.
            devices::seen(write.db(), &self.hub.connected(), now).await?;
            let seen_before = now.saturating_sub(PARTY_ABANDONED_S);
            let ended = parties::abandoned(write.db(), seen_before, ENDED_AT_ONCE).await?;
            for session in &ended {
                invites::void_open(write.db(), *session, now).await?;
                parties::delete(write.db(), *session).await?;
                tracing::info!(%session, "a party ended: nobody came for a year");
            }
            if ended.is_empty() {
                devices::forget(write.db(), now.saturating_sub(DEVICE_FORGOTTEN_S)).await?;
            }
            write.commit().await?;
            if ended.is_empty() {
                return Ok(());
            }
        }
    }
}
