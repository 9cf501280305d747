use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::bytes::{Blob, Commitment, DeviceKey, InviteHash, Mac, Signature, Token, TunnelKey};
use crate::ids::{Epoch, Generation, Member, RelayId, SessionId};
use crate::party::{Entry, EpochCopy, SealedSecret};
use crate::signed::{KickRecord, Ticket};

/// A device's first request on a connection; its answer's token is for the `Authorization: Bearer`
/// header of all others (§10.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterDevice {
    /// The device's identity.
    pub device: DeviceKey,
    /// Over this connection's channel binding, with [`super::DEVICE_PROOF_CONTEXT`].
    pub proof: Signature,
}

/// Answer to [`RegisterDevice`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Holds until the device has registered eight times more; control keeps its hash.
    pub token: Token,
    /// Control's clock.
    pub now: u64,
}

/// Makes a party with the caller as its owner, member 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateParty {
    /// See [`crate::party::valid_name`].
    pub name: String,
    /// The caller's name in the party.
    pub member_name: String,
    /// The caller's key for the party.
    pub tunnel: TunnelKey,
    /// The network address of a /24 in 10.66.0.0/16; random when absent.
    pub subnet: Option<Ipv4Addr>,
    /// Chosen by the caller: the same one again makes no second party.
    pub request: [u8; 16],
}

/// What a device gets when it enters a party.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The party as the caller sees it.
    pub party: PartyState,
    /// The caller's ticket.
    pub ticket: TicketGrant,
}

/// A ticket and how long it holds by the receiver's own monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketGrant {
    /// The ticket's bytes.
    #[serde(with = "ticket_bytes")]
    pub ticket: Ticket,
    /// Seconds from now until it expires.
    pub lifetime_s: u64,
    /// Control's clock.
    pub now: u64,
}

/// A party as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartyState {
    /// The party.
    pub session: SessionId,
    /// Its name.
    pub name: String,
    /// Network address of its /24.
    pub subnet: Ipv4Addr,
    /// Network address of its /64.
    pub prefix: Ipv6Addr,
    /// The epoch of the newest secret.
    pub epoch: Epoch,
    /// Ordered; the same for all members.
    pub relays: Vec<RelayId>,
    /// Who is reading this.
    pub you: Member,
    /// All members, the reader too, by number.
    pub members: Vec<MemberRecord>,
    /// Copies of newer secrets for the reader, oldest first; each one's kick is in `kicks`.
    pub copies: Vec<EpochCopy>,
    /// The kicks of the last 30 days and those of the copies' epochs, oldest first.
    #[serde(with = "kick_list")]
    pub kicks: Vec<KickRecord>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its number.
    pub member: Member,
    /// Its number's generation.
    pub generation: Generation,
    /// What it may do.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// Whether its device has a stream to control.
    pub online: bool,
    /// Absent until the device has published it.
    pub entry: Option<Entry>,
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Plays.
    Member,
    /// Invites and kicks members.
    Promoted,
    /// Invites, kicks, promotes.
    Owner,
}

/// The caller's own entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishEntry {
    /// Signed by the caller's device.
    pub entry: Entry,
}

/// Leaves a sealed secret with control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateInvite {
    /// Names the invite.
    pub invite: InviteHash,
    /// The secret under the invite's key.
    pub sealed: SealedSecret,
    /// The epoch inside: refused with [`super::ErrorCode::Conflict`] when it is no longer current.
    pub epoch: Epoch,
    /// Seconds until it expires, at most 30 days.
    pub lifetime_s: u64,
    /// How many devices may join by it, 1..=250.
    pub uses: u16,
}

/// Answer to [`CreateInvite`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteInfo {
    /// When it expires.
    pub expires: u64,
    /// Uses left.
    pub uses_left: u16,
    /// Control's clock.
    pub now: u64,
}

/// Asks for an invite's sealed secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenInvite {
    /// Names the invite.
    pub invite: InviteHash,
}

/// Answer to [`OpenInvite`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedInvite {
    /// To be opened before anything is redeemed.
    pub sealed: SealedSecret,
    /// The party.
    pub session: SessionId,
    /// Its name.
    pub name: String,
    /// Its network: the caller looks for overlaps before it joins.
    pub subnet: Ipv4Addr,
    /// Control's clock.
    pub now: u64,
}

/// Spends one use of an invite; a device that is already a member gets its membership again and
/// spends nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedeemInvite {
    /// Names the invite.
    pub invite: InviteHash,
    /// The caller's key for the party.
    pub tunnel: TunnelKey,
    /// The name the caller would like; a taken one gets a number appended.
    pub member_name: String,
}

/// Puts a member out and begins the next epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kick {
    /// Who goes.
    pub member: Member,
    /// The generation the caller saw.
    pub generation: Generation,
    /// The new epoch: the current one plus 1, else [`super::ErrorCode::Conflict`].
    pub epoch: Epoch,
    /// To the new secret, for the record: see [`crate::party::commitment`].
    pub commitment: Commitment,
    /// The new secret, sealed to each remaining member but the caller.
    pub copies: Vec<EpochCopy>,
    /// Each remaining entry vouched for under the new secret.
    pub macs: Vec<EntryMac>,
}

/// A member's entry under a new epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryMac {
    /// Whose entry.
    pub member: Member,
    /// Its generation.
    pub generation: Generation,
    /// The entry's new MAC.
    pub mac: Mac,
}

/// Answer to [`Kick`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kicked {
    /// A [`KickRecord`], for the members the caller tells.
    pub record: Blob,
}

/// Gives a member the right to invite and kick, or takes it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// Who.
    pub member: Member,
    /// [`Role::Promoted`] or [`Role::Member`].
    pub role: Role,
}

mod ticket_bytes {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::bytes::{decode_base64, encode_base64};
    use crate::signed::Ticket;

    pub(super) fn serialize<S: Serializer>(ticket: &Ticket, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&encode_base64(&ticket.encode()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Ticket, D::Error> {
        let text = <Cow<'de, str>>::deserialize(d)?;
        decode_base64(&text)
            .and_then(|bytes| Ticket::decode(&bytes).ok())
            .ok_or_else(|| de::Error::custom("expected a ticket in base64"))
    }
}

pub(super) mod kick_list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use crate::bytes::Blob;
    use crate::signed::KickRecord;

    pub(in crate::api) fn serialize<S: Serializer>(
        kicks: &[KickRecord],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        kicks.iter().map(|kick| Blob(kick.encode().to_vec())).collect::<Vec<_>>().serialize(s)
    }

    pub(in crate::api) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Vec<KickRecord>, D::Error> {
        let decode = |blob: Blob| KickRecord::decode(blob.0.as_slice().try_into().ok()?).ok();
        Vec::<Blob>::deserialize(d)?
            .into_iter()
            .map(|blob| decode(blob).ok_or_else(|| de::Error::custom("expected a kick record")))
            .collect()
    }
}
