use std::net::{Ipv4Addr, Ipv6Addr};

use lanrage_proto::api::{MemberRecord, PartyState, Role};
use lanrage_proto::party::{Entry, EpochCopy};
use lanrage_proto::signed::KickRecord;
use lanrage_proto::{DeviceKey, Epoch, Generation, Member, RelayId, SessionId, TunnelKey};

/// A party and every number it has ever given out.
#[derive(Clone, Debug)]
pub(crate) struct Party {
    pub(crate) session: SessionId,
    pub(crate) name: String,
    pub(crate) subnet: Ipv4Addr,
    pub(crate) prefix: Ipv6Addr,
    pub(crate) epoch: Epoch,
    pub(crate) relays: Vec<RelayId>,
    /// By number.
    pub(crate) rows: Vec<MemberRow>,
}

/// A number and its device, or the last device it had.
#[derive(Clone, Debug)]
pub(crate) struct MemberRow {
    pub(crate) member: Member,
    pub(crate) generation: Generation,
    pub(crate) device: DeviceKey,
    pub(crate) tunnel: TunnelKey,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) joined: u64,
    /// When the device left or was kicked.
    pub(crate) gone: Option<u64>,
    pub(crate) entry: Option<Entry>,
}

impl Party {
    /// The members of today, by number.
    pub(crate) fn members(&self) -> impl Iterator<Item = &MemberRow> {
        self.rows.iter().filter(|row| row.gone.is_none())
    }

    /// The member that is this device.
    pub(crate) fn member_of(&self, device: &DeviceKey) -> Option<&MemberRow> {
        self.members().find(|row| row.device == *device)
    }

    /// The member with this number.
    pub(crate) fn member(&self, member: Member) -> Option<&MemberRow> {
        self.members().find(|row| row.member == member)
    }
}

impl MemberRow {
    /// The member as others see it.
    pub(crate) fn record(&self, online: bool) -> MemberRecord {
        MemberRecord {
            member: self.member,
            generation: self.generation,
            role: self.role,
            name: self.name.clone(),
            online,
            entry: self.entry.clone(),
        }
    }
}

/// A party as one of its members sees it.
pub(crate) fn party_state(
    party: &Party,
    you: Member,
    copies: Vec<EpochCopy>,
    kicks: Vec<KickRecord>,
    online: impl Fn(&DeviceKey) -> bool,
) -> PartyState {
    PartyState {
        session: party.session,
        name: party.name.clone(),
        subnet: party.subnet,
        prefix: party.prefix,
        epoch: party.epoch,
        relays: party.relays.clone(),
        you,
        members: party.members().map(|row| row.record(online(&row.device))).collect(),
        copies,
        kicks,
    }
}
