use lanrage_proto::api::{Membership, PartyState, TicketGrant};
use lanrage_proto::signed::TicketBody;
use lanrage_proto::{DeviceKey, RateClass, RelayId, SessionId};
use sqlx::SqliteConnection;

use super::{Service, party_of};
use crate::domain::{MemberRow, Party, Refusal, party_state};
use crate::store::{StoreError, kicks, parties, pool};

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
