//! How this device puts a member out: it makes the next epoch, and control's record begins it.

use lanrage_proto::api::{EntryMac, Kick, Role};
use lanrage_proto::party::{EpochCopy, commitment};
use lanrage_proto::signed::{KickRecord, SigningKeys};
use lanrage_proto::{Commitment, Epoch, Member, PartySecret};
use rand_core::RngCore;

use super::epochs::NewEpoch;
use super::{Membership, may_kick};
use crate::client::KickError;

/// Kicks that wait for control's record; one more is refused.
const PENDING_MAX: usize = 8;

/// An epoch that waits for control's record.
pub(super) struct PendingKick {
    member: Member,
    pub(super) epoch: Epoch,
    secret: PartySecret,
    commitment: Commitment,
}

impl Membership {
    /// The kick's body for control: the new secret, sealed to every remaining member with a
    /// genuine entry, and their entries vouched for under it.
    ///
    /// No member can hinder it: an entry that is not genuine keeps its MAC, which vouches for
    /// nothing under the new secret, and who has none that the secret can be sealed to gets no copy.
    /// Nor can the maker of an epoch whose secret we were not given: then the copies are sealed
    /// without that secret.
    pub(crate) fn kick(
        &mut self,
        member: Member,
        rng: &mut impl RngCore,
    ) -> Result<Kick, KickError> {
        let target = match self.members.get(&member) {
            Some(target) if member != self.us => &target.record,
            _ => return Err(KickError::NoSuchMember(member)),
        };
        let our_role = self.members.get(&self.us).map(|known| known.record.role);
        if !our_role.is_some_and(may_kick) || target.role == Role::Owner {
            return Err(KickError::NotAllowed);
        }
        if self.pending_kicks.len() == PENDING_MAX {
            return Err(KickError::TooMany);
        }
        let generation = target.generation;
        let epoch = self.announced.next();
        let under = (!self.is_behind()).then(|| self.secrets.current());
        let mut secret = PartySecret([0; 32]);
        rng.fill_bytes(&mut secret.0);
        let remaining = || self.members.values().filter(|known| known.record.member != member);
        let copies = remaining()
            .filter(|known| known.record.member != self.us)
            .filter_map(|known| {
                let entry = known.entry.as_ref()?;
                let new = (epoch, &secret);
                let from = (self.us, &self.private);
                let to = (entry.body.member, &entry.body.tunnel);
                // Fails for a key that no honest device has.
                EpochCopy::seal(self.session, new, under, from, to, rng).ok()
            })
            .collect();
        let macs = remaining()
            .filter_map(|known| {
                let listed = known.record.entry.as_ref()?;
                let vouched = known.entry.clone().map(|entry| entry.vouch(&secret, epoch).mac);
                Some(EntryMac {
                    member: known.record.member,
                    generation: known.record.generation,
                    mac: vouched.unwrap_or(listed.mac),
                })
            })
            .collect();
        let commitment = commitment(&secret, self.session, epoch);
        self.pending_kicks.push(PendingKick { member, epoch, secret, commitment });
        Ok(Kick { member, generation, epoch, commitment, copies, macs })
    }

    /// Control has not carried out the kick and never will.
    pub(crate) fn handle_kick_refused(&mut self, commitment: &Commitment) {
        self.pending_kicks.retain(|pending| pending.commitment != *commitment);
    }

    /// Control's record of our kick begins the epoch; `None` when it is of none that is pending.
    pub(crate) fn handle_kicked(
        &mut self,
        record: &KickRecord,
        keys: &impl SigningKeys,
    ) -> Option<NewEpoch> {
        if !self.is_signed(record, keys) {
            return None;
        }
        self.note_kick(record);
        self.finish_own_kick(record)
    }

    /// Begins a pending epoch when the signed record is of it: also when the answer to the kick was
    /// lost and control's list tells of it.
    pub(super) fn finish_own_kick(&mut self, record: &KickRecord) -> Option<NewEpoch> {
        let is_of = |pending: &&PendingKick| {
            pending.commitment == record.commitment
                && pending.member == record.member
                && pending.epoch == record.epoch
        };
        let pending = self.pending_kicks.iter().find(is_of)?;
        let is_ours = record.kicker == self.us && record.epoch > self.epoch();
        is_ours.then_some(pending.secret).map(|secret| self.advance(secret, record))
    }
}
