//! How a newer secret comes in: a copy left with control, or a message inside a tunnel. Either way
//! a secret is taken only beside the signed record of its kick, whose commitment it must fit.

use lanrage_proto::party::EpochCopy;
use lanrage_proto::signed::{KickRecord, SigningKeys};
use lanrage_proto::{Epoch, Member, PartySecret};

use super::Membership;

/// A party's newest secrets.
pub(super) struct Secrets {
    current: (Epoch, PartySecret),
    previous: Option<(Epoch, PartySecret)>,
}

impl Secrets {
    pub(super) fn new(mut secrets: Vec<(Epoch, PartySecret)>) -> Option<Self> {
        secrets.sort_by_key(|(epoch, _)| *epoch);
        let current = secrets.pop()?;
        Some(Self { current, previous: secrets.pop() })
    }

    pub(super) const fn current(&self) -> (Epoch, &PartySecret) {
        (self.current.0, &self.current.1)
    }

    pub(super) fn to_vec(&self) -> Vec<(Epoch, PartySecret)> {
        self.previous.into_iter().chain([self.current]).collect()
    }

    const fn advance(&mut self, epoch: Epoch, secret: PartySecret) {
        self.previous = Some(self.current);
        self.current = (epoch, secret);
    }
}

/// An epoch that has just begun here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewEpoch {
    pub(crate) epoch: Epoch,
    pub(crate) secret: PartySecret,
    /// For the members we tell.
    pub(crate) record: KickRecord,
}

impl Membership {
    /// Begins the record's epoch, a newer one than ours; the secret fits its commitment.
    pub(super) fn advance(&mut self, secret: PartySecret, record: &KickRecord) -> NewEpoch {
        let epoch = record.epoch;
        self.secrets.advance(epoch, secret);
        self.announced = self.announced.max(epoch);
        self.pending_kicks.retain(|pending| pending.epoch > epoch);
        self.review();
        NewEpoch { epoch, secret, record: *record }
    }

    /// Takes the copies of newer epochs, oldest first. One that does not open, or opens to another
    /// secret than its kick's, does not keep a later one from being taken.
    pub(super) fn open_copies(
        &mut self,
        copies: &[EpochCopy],
        kicks: &[&KickRecord],
    ) -> Vec<NewEpoch> {
        let mut copies: Vec<_> = copies.iter().filter(|copy| copy.to == self.us).collect();
        copies.sort_by_key(|copy| copy.epoch);
        let mut begun = Vec::new();
        for copy in copies {
            if let Some((secret, record)) = self.open_copy(copy, kicks) {
                begun.push(self.advance(secret, record));
            }
        }
        begun
    }

    /// Control must not be able to make an epoch for us. Our current secret stands against that: who
    /// seals under it is or was one of us, also one that came while we were off line. Without it
    /// the key agreement with a key that our directory vouches for does.
    fn open_copy<'a>(
        &self,
        copy: &EpochCopy,
        kicks: &[&'a KickRecord],
    ) -> Option<(PartySecret, &'a KickRecord)> {
        let is_vouched_for = || {
            let maker = self.members.get(&copy.from).and_then(|known| known.entry.as_ref());
            maker.is_some_and(|entry| entry.body.tunnel == copy.from_key)
        };
        if copy.epoch <= self.epoch() || (copy.under.is_none() && !is_vouched_for()) {
            return None;
        }
        let secret = copy.open(self.session, &self.private, self.secrets.current()).ok()?;
        let began = |kick: &&KickRecord| {
            kick.epoch == copy.epoch
                && kick.kicker == copy.from
                && ![copy.from, self.us].contains(&kick.member)
                && kick.is_of(&secret)
        };
        let record = kicks.iter().copied().find(began)?;
        Some((secret, record))
    }

    /// A member tells of a kick and the secret of its epoch: `Ok(None)` when we are in that epoch,
    /// or a later one. A signed record ends the kicked member's generation whatever the secret.
    ///
    /// # Errors
    /// Not signed by control, we or the sender are the one who is out, or another secret than the
    /// record's.
    pub(crate) fn handle_new_epoch(
        &mut self,
        sender: Member,
        record: &KickRecord,
        secret: &PartySecret,
        keys: &impl SigningKeys,
    ) -> Result<Option<NewEpoch>, BadEpoch> {
        if [sender, self.us].contains(&record.member) || !self.is_signed(record, keys) {
            return Err(BadEpoch);
        }
        self.note_kick(record);
        let (epoch, current) = self.secrets.current();
        if record.epoch < epoch {
            return Ok(None);
        }
        if !record.is_of(secret) || (record.epoch == epoch && secret != current) {
            return Err(BadEpoch);
        }
        Ok((record.epoch > epoch).then(|| self.advance(*secret, record)))
    }

    /// Takes in a signed record: its member is out, its epoch exists.
    pub(super) fn note_kick(&mut self, record: &KickRecord) {
        self.announced = self.announced.max(record.epoch);
        if record.epoch == self.kicks_known_to.next() {
            self.kicks_known_to = record.epoch;
        }
        self.raise_generation(record);
    }

    /// Whether we know of every kick up to our epoch.
    pub(crate) fn knows_all_kicks(&self) -> bool {
        self.kicks_known_to >= self.epoch()
    }

    /// Whether the member may be told our secret: no kick that we have not heard of can have put it
    /// out, or whoever began our epoch vouches for it.
    pub(crate) fn may_be_told(&self, member: Member) -> bool {
        let (epoch, secret) = self.secrets.current();
        let entry = self.members.get(&member).and_then(|known| known.entry.as_ref());
        let is_vouched_for =
            |entry: &lanrage_proto::party::Entry| entry.epoch == epoch && entry.is_genuine(secret);
        entry.is_some_and(|entry| self.knows_all_kicks() || is_vouched_for(entry))
    }
}

/// See [`Membership::handle_new_epoch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadEpoch;
