use serde::{Deserialize, Serialize};

use super::party::kick_list;
use super::{MemberRecord, PartyState};
use crate::bytes::Blob;
use crate::ids::{Member, RelayId, SessionId};
use crate::map::SignedMap;
use crate::signed::KickRecord;

/// Records in [`DeviceDown::Snapshot::put_out`]: as many as there are parties of a device, so that
/// one for each that it was in when it was last there is among the newest.
pub const PUT_OUT_MAX: usize = 32;

/// What a device says on its stream: one [`DeviceUp::Follow`] first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum DeviceUp {
    /// Asks for everything after a cursor; control sends a snapshot when it no longer has that.
    Follow {
        /// The last cursor seen; none asks for a snapshot.
        cursor: Option<u64>,
    },
}

/// What control says to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum DeviceDown {
    /// The whole truth at `cursor`; replaces all that came before.
    Snapshot {
        /// Where the deltas go on from.
        cursor: u64,
        /// The device's parties.
        parties: Vec<PartyState>,
        /// The newest kick of the device in each party that it was put out of in the last 30 days
        /// and is not in again; [`PUT_OUT_MAX`] at most, newest first.
        #[serde(with = "kick_list", default)]
        put_out: Vec<KickRecord>,
        /// The relay map.
        map: Box<SignedMap>,
        /// Control's clock.
        now: u64,
    },
    /// One change.
    Delta {
        /// Of this change.
        cursor: u64,
        /// What changed.
        change: Box<Change>,
    },
}

/// One change to what a device sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A party in full: the device entered it, or so much changed that this is shorter.
    Party {
        /// As the device sees it.
        party: PartyState,
    },
    /// A member is new, or its record changed.
    Member {
        /// The party.
        session: SessionId,
        /// The record in full.
        member: MemberRecord,
    },
    /// A member left by itself.
    Left {
        /// The party.
        session: SessionId,
        /// Who.
        member: Member,
    },
    /// The device is no longer in the party: it left, or it was kicked.
    Removed {
        /// The party.
        session: SessionId,
        /// The [`KickRecord`] when it was kicked.
        kick: Option<Blob>,
    },
    /// The party's relay list changed.
    Relays {
        /// The party.
        session: SessionId,
        /// The new list.
        relays: Vec<RelayId>,
    },
    /// The relay map changed.
    Map {
        /// The new map.
        map: SignedMap,
    },
}
