//! How a newer secret comes in: a copy left with control, or a message inside a tunnel.

use lanrage_proto::party::EpochCopy;
use lanrage_proto::signed::{KickRecord, SigningKeys};
use lanrage_proto::{Epoch, Member, PartySecret};

use super::{Membership, may_kick};

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

    fn advance(&mut self, secret: PartySecret) {
        self.previous = Some(self.current);
        self.current = (self.current.0.next(), secret);
    }
}

/// An epoch that has just begun here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewEpoch {
    pub(crate) epoch: Epoch,
    pub(crate) secret: PartySecret,
    /// For the members we tell; absent when control no longer has it.
    pub(crate) record: Option<KickRecord>,
}

impl Membership {
    pub(super) fn advance(&mut self, secret: PartySecret, record: Option<&KickRecord>) -> NewEpoch {
        self.secrets.advance(secret);
        self.announced = self.announced.max(self.epoch());
        if let Some(record) = record {
            self.raise_generation(record);
        }
        self.review();
        NewEpoch { epoch: self.epoch(), secret, record: record.copied() }
    }

    /// Takes the copies that follow our epoch, one after the other. Each is believed when it opens,
    /// which takes the old secret and the kicker's private key, and the kicker is one that may kick.
    pub(super) fn open_copies(
        &mut self,
        copies: &[EpochCopy],
        kicks: &[&KickRecord],
    ) -> Vec<NewEpoch> {
        let mut begun = Vec::new();
        for copy in copies {
            if copy.to != self.us || copy.epoch != self.epoch().next() {
                continue;
            }
            let record = kicks.iter().copied().find(|kick| kick.epoch == copy.epoch);
            if !self.may_begin(copy, record) {
                continue;
            }
            let (_, old) = self.secrets.current();
            if let Ok(secret) = copy.open(self.session, &self.private, old) {
                begun.push(self.advance(secret, record));
            }
        }
        begun
    }

    /// Whether the maker of a copy may begin an epoch. A member that our directory knows must own
    /// the copy's key; control's signed record, or its role, must let it kick. One that came and
    /// kicked while we were off line is known by the record alone.
    fn may_begin(&self, copy: &EpochCopy, record: Option<&KickRecord>) -> bool {
        let recorded = record.is_some_and(|kick| {
            kick.kicker == copy.from && kick.member != copy.from && kick.member != self.us
        });
        match self.members.get(&copy.from) {
            Some(known) => match &known.entry {
                Some(entry) => {
                    entry.body.tunnel == copy.from_key && (recorded || may_kick(known.record.role))
                }
                None => recorded,
            },
            None => recorded,
        }
    }

    /// A member says that the next epoch has begun: `Ok(None)` when we are in it already.
    ///
    /// # Errors
    /// Not the next epoch, not signed by control, we or the sender are the one who is out. What it
    /// was told of is then left to control.
    pub(crate) fn handle_new_epoch(
        &mut self,
        sender: Member,
        record: &KickRecord,
        secret: &PartySecret,
        keys: &impl SigningKeys,
    ) -> Result<Option<NewEpoch>, BadEpoch> {
        if record.member == sender || record.member == self.us || !self.is_signed(record, keys) {
            return Err(BadEpoch);
        }
        self.announced = self.announced.max(record.epoch);
        if record.epoch == self.epoch() && secret == self.secrets.current().1 {
            return Ok(None);
        }
        if record.epoch != self.epoch().next() {
            return Err(BadEpoch);
        }
        Ok(Some(self.advance(*secret, Some(record))))
    }
}

/// See [`Membership::handle_new_epoch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadEpoch;
