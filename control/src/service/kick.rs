use lanrage_proto::api::{Change, ErrorCode, Kick, Kicked, Revocation};
use lanrage_proto::bytes::Blob;
use lanrage_proto::signed::KickRecord;
use lanrage_proto::{DeviceKey, SessionId, Signature};

use super::{Service, party_of};
use crate::domain::limits::REVOCATION_KEPT_S;
use crate::domain::{MemberRow, Refusal, kick, refuse};
use crate::hub::encode;
use crate::store::{StoreError, Write, invites, kicks, parties};

impl Service {
    /// Puts a member out and begins the next epoch, all or nothing; then tells everybody.
    pub(crate) async fn kick(
        &self,
        device: &DeviceKey,
        session: SessionId,
        request: &Kick,
    ) -> Result<Kicked, Refusal> {
        let now = self.clock.now();
        let mut write = self.store.write().await?;
        let (party, me) = party_of(write.db(), session, device).await?;
        let plan = kick::plan(&party, &me, request)?;

        if !parties::advance_epoch(write.db(), session, request.epoch).await? {
            return Err(refuse(ErrorCode::Conflict, "the party has another epoch: read it again"));
        }
        let target = plan.target;
        let out = MemberRow {
            generation: plan.generation,
            gone: Some(now),
            entry: None,
            ..target.clone()
        };
        parties::put_member(write.db(), session, &out).await?;
        for row in party.members().filter(|row| row.member != target.member) {
            let (Some(entry), Some(mac)) = (&row.entry, plan.macs.get(&row.member)) else {
                continue;
            };
            let mut entry = entry.clone();
            entry.epoch = request.epoch;
            entry.mac = *mac;
            let row = MemberRow { entry: Some(entry), ..row.clone() };
            parties::put_member(write.db(), session, &row).await?;
        }
        invites::void_open(write.db(), session, now).await?;
        kicks::drop_copies(write.db(), session, target.member).await?;
        let signer = self.signer(now);
        let record = KickRecord {
            key_id: signer.id,
            member: target.member,
            kicker: me.member,
            generation: plan.generation,
            session,
            epoch: request.epoch,
            issued: now,
            commitment: request.commitment,
            signature: Signature([0; 64]),
        }
        .sign(&signer.key);
        kicks::keep_record(write.db(), &record, &target.device).await?;
        for copy in &request.copies {
            kicks::keep_copy(write.db(), session, copy).await?;
        }
        let revocation = Revocation {
            session,
            member: target.member,
            generation: plan.generation,
            forget_after: now + REVOCATION_KEPT_S,
        };
        let cursor = kicks::revoke(write.db(), &revocation).await?;
        let views = self.views_of_all(&mut write, session).await?;

        let _committed = write.commit().await?;
        self.revoked.send_replace(cursor);
        let record = Blob(record.encode().to_vec());
        let removed = Change::Removed { session, kick: Some(record.clone()) };
        self.hub.publish(&target.device, &encode(&removed));
        for (device, view) in views {
            self.hub.publish(&device, &encode(&view));
        }
        metrics::counter!("lanrage_control_kicks_total").increment(1);
        let (member, by) = (target.member.number(), me.member.number());
        tracing::info!(%session, member, by, "a member was kicked");
        Ok(Kicked { record })
    }

    /// The party in full for each member whose device follows its feed.
    async fn views_of_all(
        &self,
        write: &mut Write<'_>,
        session: SessionId,
    ) -> Result<Vec<(DeviceKey, Change)>, StoreError> {
        let party = parties::load(write.db(), session).await?;
        let party = party.ok_or(StoreError::Unreadable("party"))?;
        let mut views = Vec::new();
        for row in party.members().filter(|row| self.hub.has_feed(&row.device)) {
            let party = self.party_state(write.db(), &party, row).await?;
            views.push((row.device, Change::Party { party }));
        }
        Ok(views)
    }
}
