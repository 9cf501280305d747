use lanrage_proto::api::{Change, CreateParty, ErrorCode, Membership, Promote, PublishEntry, Role};
use lanrage_proto::{DeviceKey, Epoch, Generation, Member, SessionId};

use super::{Service, party_of};
use crate::domain::limits::PARTIES_PER_DEVICE_MAX;
use crate::domain::{MemberRow, Party, Refusal, entry, naming, refuse, relays, role};
use crate::hub::encode;
use crate::random::random_bytes;
use crate::store::parties::NewParty;
use crate::store::{StoreError, Write, invites, kicks, parties};

impl Service {
    /// Makes a party with the caller as owner; the same request again gives the same party.
    pub(crate) async fn create_party(
        &self,
        device: &DeviceKey,
        request: &CreateParty,
    ) -> Result<Membership, Refusal> {
        naming::check_name(&request.name)?;
        naming::check_name(&request.member_name)?;
        entry::check_tunnel_key(&request.tunnel)?;
        let now = self.clock.now();
        let mut write = self.store.write().await?;
        if let Some(session) = parties::of_request(write.db(), device, &request.request).await? {
            let (party, me) = party_of(write.db(), session, device).await?;
            return Ok(self.membership(write.db(), &party, &me).await?);
        }

        check_party_count(&mut write, device).await?;
        let mut used = Vec::new();
        for session in parties::of_device(write.db(), device).await? {
            used.extend(parties::load(write.db(), session).await?.map(|party| party.subnet));
        }
        let [third] = random_bytes();
        let standings = self.fleet.standings(self.clock.uptime_s());
        let relays = relays::revise(&[], &standings, self.settings.party_relays);
        if relays.is_empty() {
            return Err(refuse(
                ErrorCode::NoRelay,
                "no relay serves: the operator enrols one with `lanrage-control relay token`",
            ));
        }
        let owner = MemberRow {
            member: Member::new(1).expect("1 is a member number"),
            generation: Generation(1),
            device: *device,
            tunnel: request.tunnel,
            name: request.member_name.clone(),
            role: Role::Owner,
            joined: now,
            gone: None,
            entry: None,
        };
        let mut party = Party {
            session: SessionId(0),
            name: request.name.clone(),
            subnet: naming::subnet(request.subnet, &used, third)?,
            prefix: naming::prefix(random_bytes()),
            epoch: Epoch(1),
            relays,
            rows: vec![owner.clone()],
        };
        loop {
            party.session = SessionId(u64::from_be_bytes(random_bytes()));
            let new = NewParty { party: &party, creator: device, request: &request.request, now };
            if parties::insert(write.db(), &new).await? {
                break;
            }
        }
        parties::put_member(write.db(), party.session, &owner).await?;
        let membership = self.membership(write.db(), &party, &owner).await?;
        let _committed = write.commit().await?;
        tracing::info!(session = %party.session, "a party was created");
        self.hub.publish(device, &encode(&Change::Party { party: membership.party.clone() }));
        Ok(membership)
    }

    /// Takes the caller's own directory entry; its name becomes the member's name. The same entry
    /// again changes nothing, and nobody is told.
    pub(crate) async fn publish_entry(
        &self,
        device: &DeviceKey,
        session: SessionId,
        request: PublishEntry,
    ) -> Result<(), Refusal> {
        let mut write = self.store.write().await?;
        let (party, mut me) = party_of(write.db(), session, device).await?;
        entry::check(&party, &me, &request.entry)?;
        if me.entry.as_ref() == Some(&request.entry) {
            return Ok(());
        }
        me.name.clone_from(&request.entry.body.name);
        me.entry = Some(request.entry);
        parties::put_member(write.db(), session, &me).await?;
        let _committed = write.commit().await?;
        self.tell_member(&party, None, &me);
        Ok(())
    }

    /// Gives or takes the right to invite and kick.
    pub(crate) async fn promote(
        &self,
        device: &DeviceKey,
        session: SessionId,
        request: &Promote,
    ) -> Result<(), Refusal> {
        let mut write = self.store.write().await?;
        let (party, me) = party_of(write.db(), session, device).await?;
        let target = party
            .member(request.member)
            .ok_or_else(|| refuse(ErrorCode::NotFound, "the party has no such member"))?;
        role::may_promote(&me, target, request.role)?;
        let target = MemberRow { role: request.role, ..target.clone() };
        parties::put_member(write.db(), session, &target).await?;
        let _committed = write.commit().await?;
        self.tell_member(&party, None, &target);
        Ok(())
    }

    /// The caller leaves; an owner's place goes to the next, and a party without members ends.
    pub(crate) async fn leave(
        &self,
        device: &DeviceKey,
        session: SessionId,
    ) -> Result<(), Refusal> {
        let now = self.clock.now();
        let mut write = self.store.write().await?;
        let (party, me) = party_of(write.db(), session, device).await?;
        let gone = MemberRow { gone: Some(now), entry: None, role: Role::Member, ..me.clone() };
        parties::put_member(write.db(), session, &gone).await?;
        kicks::drop_copies(write.db(), session, me.member).await?;
        let next_owner = match me.role {
            Role::Owner => role::successor(&party, me.member, |_| true),
            Role::Promoted | Role::Member => None,
        };
        let next_owner = match next_owner {
            Some(member) => Some(make_owner(&mut write, &party, member).await?),
            None => None,
        };
        if party.members().count() == 1 {
            invites::void_open(write.db(), session, now).await?;
            parties::delete(write.db(), session).await?;
        }
        let _committed = write.commit().await?;
        let heir = next_owner.as_ref().map(|row| row.member.number());
        tracing::info!(%session, member = me.member.number(), heir, "a member left");
        self.hub.publish(device, &encode(&Change::Removed { session, kick: None }));
        self.tell(&party, Some(device), &Change::Left { session, member: me.member });
        if let Some(owner) = next_owner {
            self.tell_member(&party, Some(device), &owner);
        }
        Ok(())
    }
}

/// Makes a member the owner.
pub(super) async fn make_owner(
    write: &mut Write<'_>,
    party: &Party,
    member: Member,
) -> Result<MemberRow, StoreError> {
    let row = party.member(member).expect("a successor is a member");
    let row = MemberRow { role: Role::Owner, ..row.clone() };
    parties::put_member(write.db(), party.session, &row).await?;
    Ok(row)
}

/// # Errors
/// [`ErrorCode::Forbidden`] when the device is in as many parties as it may be.
pub(super) async fn check_party_count(
    write: &mut Write<'_>,
    device: &DeviceKey,
) -> Result<(), Refusal> {
    if parties::of_device(write.db(), device).await?.len() < PARTIES_PER_DEVICE_MAX {
        return Ok(());
    }
    Err(refuse(ErrorCode::Forbidden, "a device is in at most 32 parties: leave one first"))
}
