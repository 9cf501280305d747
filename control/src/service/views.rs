use std::time::Duration;

use lanrage_proto::api::{ErrorCode, Membership, PartyState, TicketGrant};
use lanrage_proto::signed::{KickRecord, TicketBody};
use lanrage_proto::{DeviceKey, RateClass, RelayId, SessionId};
use sqlx::SqliteConnection;
use tokio::time::timeout;

use super::{Service, party_of};
use crate::domain::limits::{
    SNAPSHOT_COPY_LEN, SNAPSHOT_KICK_LEN, SNAPSHOT_MEMBER_LEN, SNAPSHOT_PARTY_LEN,
};
use crate::domain::{MemberRow, Party, Refusal, party_state, refuse};
use crate::network::{Network, Part};
use crate::store::{StoreError, kicks, parties, pool};

/// A device waits so long for others of its network to take their snapshots; its own stream would be
/// dead after 30 s of silence.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(10);
/// The class of every lease: relays define its limits.
const RATE_CLASS: RateClass = RateClass(0);

impl Service {
    /// A new ticket for a member.
    pub(crate) async fn ticket(
        &self,
        device: &DeviceKey,
        session: SessionId,
    ) -> Result<TicketGrant, Refusal> {
        let mut view = self.store.read().await?;
        let (party, me) = party_of(&mut view, session, device).await?;
        Ok(self.grant(&mut view, &party, &me).await?)
    }

    /// What a device gets when it enters a party.
    pub(super) async fn membership(
        &self,
        db: &mut SqliteConnection,
        party: &Party,
        me: &MemberRow,
    ) -> Result<Membership, StoreError> {
        let ticket = self.grant(db, party, me).await?;
        Ok(Membership { party: self.party_state(db, party, me).await?, ticket })
    }

    /// The party as this member sees it.
    pub(super) async fn party_state(
        &self,
        db: &mut SqliteConnection,
        party: &Party,
        me: &MemberRow,
    ) -> Result<PartyState, StoreError> {
        let copies = kicks::copies(db, party.session, me.member).await?;
        let kicks = kicks::records(db, party.session).await?;
        let online = |device: &DeviceKey| self.hub.is_online(device);
        Ok(party_state(party, me.member, copies, kicks, online))
    }

    /// All parties of a device as it sees them.
    pub(crate) async fn parties_of(
        &self,
        db: &mut SqliteConnection,
        device: &DeviceKey,
    ) -> Result<Vec<PartyState>, StoreError> {
        let mut states = Vec::new();
        for session in parties::of_device(db, device).await? {
            let Some(party) = parties::load(db, session).await? else { continue };
            let Some(me) = party.member_of(device) else { continue };
            states.push(self.party_state(db, &party, me).await?);
        }
        Ok(states)
    }

    /// The kicks that a device may not have heard of.
    pub(crate) async fn put_out(
        &self,
        db: &mut SqliteConnection,
        device: &DeviceKey,
    ) -> Result<Vec<KickRecord>, StoreError> {
        kicks::put_out(db, device).await
    }

    /// About how long a device's snapshot is in bytes of JSON, and not less.
    pub(crate) async fn snapshot_len(&self, device: &DeviceKey) -> Result<u64, StoreError> {
        let mut view = self.store.read().await?;
        let extent = parties::extent_of_device(&mut view, device).await?;
        let put_out = kicks::put_out(&mut view, device).await?.len() as u64;
        // The map is JSON in JSON: each of its quotes takes two bytes.
        let map = 2 * self.map.borrow().map.len() as u64;
        Ok(map
            + SNAPSHOT_PARTY_LEN * (extent.parties + 1)
            + SNAPSHOT_MEMBER_LEN * extent.members
            + SNAPSHOT_KICK_LEN * (extent.kicks + put_out)
            + SNAPSHOT_COPY_LEN * extent.copies)
    }

    /// Waits for the memory that a snapshot of `len` bytes takes while it is sent: its text, and the
    /// copy of it that is being written.
    ///
    /// # Errors
    /// [`ErrorCode::RateLimited`] when the device's network does not take the snapshots under way.
    pub(crate) async fn snapshot_memory(
        &self,
        len: u64,
        network: Network,
    ) -> Result<Part, Refusal> {
        let kib = u32::try_from((2 * len).div_ceil(1_024)).unwrap_or(u32::MAX);
        timeout(SNAPSHOT_PATIENCE, self.snapshots.take(kib, network)).await.map_err(|_| {
            metrics::counter!("lanrage_control_rate_limited_total").increment(1);
            refuse(
                ErrorCode::RateLimited,
                "snapshots for this network are under way and not taken: try again later",
            )
        })
    }

    async fn grant(
        &self,
        db: &mut SqliteConnection,
        party: &Party,
        me: &MemberRow,
    ) -> Result<TicketGrant, StoreError> {
        let now = self.clock.now();
        let lifetime_s = self.settings.ticket_lifetime_s;
        let mut relays = [RelayId(0); 3];
        relays.iter_mut().zip(&party.relays).for_each(|(slot, relay)| *slot = *relay);
        let signer = self.signer(now);
        let body = TicketBody {
            key_id: signer.id,
            pool: pool::load(db).await?.id,
            session: party.session,
            member: me.member,
            generation: me.generation,
            rate_class: RATE_CLASS,
            key: me.tunnel,
            relays,
            not_before: now,
            expires: now + lifetime_s,
        };
        Ok(TicketGrant { ticket: body.sign(&signer.key), lifetime_s, now })
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use lanrage_proto::api::{MemberRecord, Role};
    use lanrage_proto::party::EntryBody;
    use lanrage_proto::{Epoch, Generation, Member, PartySecret, TunnelKey};

    use super::*;

    #[test]
    fn a_member_is_not_longer_than_foreseen() {
        let name = "x".repeat(32);
        let key = SigningKey::from_bytes(&[1; 32]);
        let body = EntryBody {
            session: SessionId(u64::MAX),
            member: Member::new(250).unwrap(),
            generation: Generation(u32::MAX),
            name: name.clone(),
            device: DeviceKey(key.verifying_key().to_bytes()),
            tunnel: TunnelKey([1; 32]),
        };
        let entry = body.sign(&key, &PartySecret([1; 32]), Epoch(u32::MAX));
        let record = MemberRecord {
            member: Member::new(250).unwrap(),
            generation: Generation(u32::MAX),
            role: Role::Promoted,
            name,
            online: false,
            entry: Some(entry),
        };
        let len = serde_json::to_string(&record).unwrap().len() as u64 + 1;
        assert!((SNAPSHOT_MEMBER_LEN / 2..=SNAPSHOT_MEMBER_LEN).contains(&len), "{len}");
    }
}
