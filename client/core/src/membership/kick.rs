//! How this device puts a member out: it makes the next epoch, and control's record begins it.

use lanrage_proto::api::{EntryMac, Kick, Role};
use lanrage_proto::party::EpochCopy;
use lanrage_proto::signed::{KickRecord, SigningKeys};
use lanrage_proto::{Epoch, Member, PartySecret};
use rand_core::RngCore;

use super::epochs::NewEpoch;
use super::{Membership, may_kick};
use crate::client::KickError;

/// An epoch that waits for control's record.
pub(super) struct PendingKick {
    member: Member,
    epoch: Epoch,
    secret: PartySecret,
}

impl Membership {
    /// The kick's body for control: the new secret, sealed to every remaining member with a
    /// genuine entry, and their entries vouched for under it.
    ///
    /// No member can hinder it: an entry that is not genuine keeps its MAC, which vouches for
    /// nothing under the new secret, and who has none that the secret can be sealed to gets no copy.
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
        if self.is_behind() {
            return Err(KickError::Behind);
        }
        let generation = target.generation;
        let epoch = self.epoch().next();
        let mut secret = PartySecret([0; 32]);
        rng.fill_bytes(&mut secret.0);
        let remaining = || self.members.values().filter(|known| known.record.member != member);
        let copies = remaining()
            .filter(|known| known.record.member != self.us)
            .filter_map(|known| {
                let entry = known.entry.as_ref()?;
                let (_, old) = self.secrets.current();
                let to = (entry.body.member, &entry.body.tunnel);
                let copy = EpochCopy::seal(
                    self.session,
                    epoch,
                    self.us,
                    &self.private,
                    to,
                    old,
                    &secret,
                    rng,
                );
                // Fails for a key that no honest device has.
                copy.ok()
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
        self.pending_kick = Some(PendingKick { member, epoch, secret });
        Ok(Kick { member, generation, epoch, copies, macs })
    }

    /// Control's record of our kick begins the epoch; `None` when it is not of the pending one.
    pub(crate) fn handle_kicked(
        &mut self,
        record: &KickRecord,
        keys: &impl SigningKeys,
    ) -> Option<NewEpoch> {
        if !self.is_signed(record, keys) {
            return None;
        }
        self.finish_own_kick(&[record]).pop()
    }

    /// Begins the pending epoch when one of the signed records is of it: also when the answer to
    /// the kick was lost and control's list tells of it.
    pub(super) fn finish_own_kick(&mut self, kicks: &[&KickRecord]) -> Vec<NewEpoch> {
        let is_ours = |kick: &&&KickRecord| {
            self.pending_kick.as_ref().is_some_and(|pending| {
                kick.kicker == self.us
                    && kick.member == pending.member
                    && kick.epoch == pending.epoch
                    && pending.epoch == self.epoch().next()
            })
        };
        let Some(record) = kicks.iter().find(is_ours).copied() else { return Vec::new() };
        let Some(pending) = self.pending_kick.take() else { return Vec::new() };
        vec![self.advance(pending.secret, Some(record))]
    }
}
