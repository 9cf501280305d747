use lanrage_proto::api::{
    Change, CreateInvite, ErrorCode, InviteInfo, Membership, OpenedInvite, RedeemInvite, Role,
};
use lanrage_proto::{DeviceKey, InviteHash, SessionId};

use super::party::check_party_count;
use super::{Service, party_of};
use crate::domain::invite::{self, InviteRow};
use crate::domain::limits::INVITES_OPEN_MAX;
use crate::domain::{MemberRow, Refusal, entry, naming, refuse, role, seat};
use crate::hub::encode;
use crate::store::{invites, kicks, parties};

impl Service {
    /// Keeps a sealed secret; the same invite again changes nothing.
    pub(crate) async fn create_invite(
        &self,
        device: &DeviceKey,
        session: SessionId,
        request: &CreateInvite,
    ) -> Result<InviteInfo, Refusal> {
        invite::check_new(request)?;
        let now = self.clock.now();
        let mut write = self.store.write().await?;
        let (party, me) = party_of(write.db(), session, device).await?;
        role::may_invite(me.role)?;
        if let Some(row) = invites::load(write.db(), &request.invite).await? {
            let same = row.session == session && row.sealed.as_ref() == Some(&request.sealed);
            return if same {
                Ok(InviteInfo { expires: row.expires, uses_left: row.uses_left, now })
            } else {
                Err(refuse(ErrorCode::Conflict, "the invite is already used: make another"))
            };
        }
        if request.epoch != party.epoch {
            return Err(refuse(
                ErrorCode::Conflict,
                "the party has another epoch: read it again and seal the new secret",
            ));
        }
        if invites::open_count(write.db(), session).await? >= INVITES_OPEN_MAX {
            return Err(refuse(
                ErrorCode::Forbidden,
                "the party has 64 open invites: use one of them, or wait until one expires",
            ));
        }
        let row = InviteRow {
            session,
            sealed: Some(request.sealed.clone()),
            expires: now + request.lifetime_s,
            uses_left: request.uses,
            void: false,
        };
        invites::insert(write.db(), &request.invite, &row).await?;
        write.commit().await?;
        Ok(InviteInfo { expires: row.expires, uses_left: row.uses_left, now })
    }

    /// Gives the sealed secret and uses nothing up.
    pub(crate) async fn open_invite(&self, hash: &InviteHash) -> Result<OpenedInvite, Refusal> {
        let now = self.clock.now();
        let mut view = self.store.read().await?;
        let row = invites::load(&mut view, hash).await?.ok_or_else(invite::unknown)?;
        let sealed = row.usable(now)?.clone();
        let party = parties::load(&mut view, row.session).await?.ok_or_else(invite::unknown)?;
        Ok(OpenedInvite {
            sealed,
            session: party.session,
            name: party.name,
            subnet: party.subnet,
            now,
        })
    }

    /// Lets the device into the party; a member spends nothing.
    pub(crate) async fn redeem_invite(
        &self,
        device: &DeviceKey,
        request: &RedeemInvite,
    ) -> Result<Membership, Refusal> {
        entry::check_tunnel_key(&request.tunnel)?;
        let now = self.clock.now();
        let mut write = self.store.write().await?;
        let invite = invites::load(write.db(), &request.invite).await?;
        let invite = invite.ok_or_else(invite::unknown)?;
        let Some(mut party) = parties::load(write.db(), invite.session).await? else {
            return Err(invite.usable(now).err().unwrap_or_else(invite::unknown));
        };

        let has_key = |row: &MemberRow| row.device != *device && row.tunnel == request.tunnel;
        if party.members().any(has_key) {
            return Err(refuse(
                ErrorCode::Conflict,
                "another member has this tunnel key: make a new key pair",
            ));
        }
        if let Some(me) = party.member_of(device).cloned() {
            if me.tunnel == request.tunnel {
                return Ok(self.membership(write.db(), &party, &me).await?);
            }
            // The device has lost its key for the party: its old entry holds no more.
            let me = MemberRow { tunnel: request.tunnel, entry: None, ..me };
            parties::put_member(write.db(), party.session, &me).await?;
            replace(&mut party.rows, &me);
            let membership = self.membership(write.db(), &party, &me).await?;
            let _committed = write.commit().await?;
            self.tell_member(&party, None, &me);
            return Ok(membership);
        }

        naming::check_name(&request.member_name)?;
        check_party_count(&mut write, device).await?;
        if !invites::redeem(write.db(), &request.invite, now).await? {
            return Err(invite.usable(now).err().unwrap_or_else(invite::unknown));
        }
        let seat = seat::seat(&party.rows, device, now)?;
        let taken = |name: &str| party.members().any(|row| row.name == name);
        let me = MemberRow {
            member: seat.member,
            generation: seat.generation,
            device: *device,
            tunnel: request.tunnel,
            name: naming::free_name(&request.member_name, taken),
            role: Role::Member,
            joined: now,
            gone: None,
            entry: None,
        };
        kicks::drop_copies(write.db(), party.session, me.member).await?;
        parties::put_member(write.db(), party.session, &me).await?;
        replace(&mut party.rows, &me);
        let membership = self.membership(write.db(), &party, &me).await?;
        let _committed = write.commit().await?;
        metrics::counter!("lanrage_control_invites_redeemed_total").increment(1);
        tracing::info!(session = %party.session, member = me.member.number(), "a member joined");
        self.tell_member(&party, Some(device), &me);
        self.hub.publish(device, &encode(&Change::Party { party: membership.party.clone() }));
        Ok(membership)
    }
}

fn replace(rows: &mut Vec<MemberRow>, row: &MemberRow) {
    rows.retain(|other| other.member != row.member);
    rows.push(row.clone());
    rows.sort_unstable_by_key(|row| row.member);
}
