//! Who is in the party: control's list, believed only as far as devices and the party's secret
//! vouch for it.

mod epochs;
mod kick;

use std::collections::BTreeMap;

use lanrage_proto::api::{MemberRecord, PartyState, Role};
use lanrage_proto::party::Entry;
use lanrage_proto::signed::{KickRecord, SigningKeys};
use lanrage_proto::{Epoch, Generation, Member, PartySecret, SessionId, TunnelKey};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::addresses::Networks;
pub(crate) use epochs::NewEpoch;
use epochs::Secrets;
use kick::PendingKick;

/// One member as far as it is believed.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// As control says; an entry in it is not yet believed.
    pub(crate) record: MemberRecord,
    /// Both its device and the party stand behind it.
    pub(crate) entry: Option<Entry>,
}

pub(crate) struct Membership {
    pub(crate) session: SessionId,
    pub(crate) us: Member,
    pub(crate) networks: Networks,
    private: StaticSecret,
    secrets: Secrets,
    members: BTreeMap<Member, Known>,
    /// The lowest generation of a number that still holds, by kick records.
    generations: BTreeMap<Member, Generation>,
    /// Control's newest epoch, which may be ahead of ours.
    announced: Epoch,
    /// We have the records of all kicks up to this epoch.
    kicks_known_to: Epoch,
    pending_kicks: Vec<PendingKick>,
}

/// What a change means for the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// New epochs in hand, oldest first.
    pub(crate) epochs: Vec<NewEpoch>,
    /// We are out, and whose kick it was when a record says so.
    pub(crate) removed: Option<Option<Member>>,
}

impl Membership {
    /// `None` when there is no secret.
    pub(crate) fn new(
        party: &PartyState,
        secrets: Vec<(Epoch, PartySecret)>,
        private: StaticSecret,
    ) -> Option<Self> {
        let secrets = Secrets::new(secrets)?;
        let (epoch, _) = secrets.current();
        Some(Self {
            session: party.session,
            us: party.you,
            networks: Networks { subnet: party.subnet, prefix: party.prefix },
            private,
            secrets,
            members: BTreeMap::new(),
            generations: BTreeMap::new(),
            announced: party.epoch.max(epoch),
            kicks_known_to: epoch,
            pending_kicks: Vec::new(),
        })
    }

    /// Control's word on the whole party. The directory known so far decides whom a new epoch is
    /// taken from; then the new directory is taken under the newest secret.
    pub(crate) fn handle_party(&mut self, party: &PartyState, keys: &impl SigningKeys) -> Outcome {
        if party.session != self.session || party.you != self.us {
            return Outcome::default();
        }
        if self.members.is_empty() {
            self.set_members(&party.members);
        }
        self.announced = self.announced.max(party.epoch);
        let mut kicks: Vec<_> =
            party.kicks.iter().filter(|kick| self.is_signed(kick, keys)).collect();
        kicks.sort_by_key(|kick| kick.epoch);
        kicks.iter().for_each(|kick| self.note_kick(kick));
        let mut epochs: Vec<_> =
            kicks.iter().filter_map(|kick| self.finish_own_kick(kick)).collect();
        epochs.extend(self.open_copies(&party.copies, &kicks));
        self.set_members(&party.members);
        let listed = self.members.contains_key(&self.us);
        let removed = (!listed).then(|| {
            let ours = kicks.iter().rfind(|kick| kick.member == self.us);
            ours.map(|kick| kick.kicker)
        });
        Outcome { epochs, removed }
    }

    /// Control's word on one member.
    pub(crate) fn handle_member(&mut self, record: &MemberRecord) {
        let entry = self.believed(record);
        if self.holds(record) {
            self.members.insert(record.member, Known { record: record.clone(), entry });
        }
    }

    pub(crate) fn handle_left(&mut self, member: Member) {
        if member != self.us {
            self.members.remove(&member);
        }
    }

    fn set_members(&mut self, records: &[MemberRecord]) {
        let known = records.iter().filter(|record| self.holds(record)).map(|record| {
            let entry = self.believed(record);
            (record.member, Known { record: record.clone(), entry })
        });
        self.members = known.collect();
    }

    /// Whether no kick has ended the record's generation.
    fn holds(&self, record: &MemberRecord) -> bool {
        self.generations.get(&record.member).is_none_or(|lowest| record.generation >= *lowest)
    }

    /// The entry in a record, when it is what control's list says and genuine under the current
    /// secret, or the same that was believed before. An older secret makes nobody new a member:
    /// whoever was kicked still knows it.
    fn believed(&self, record: &MemberRecord) -> Option<Entry> {
        let entry = record.entry.as_ref()?;
        let body = &entry.body;
        let fits = body.session == self.session
            && body.member == record.member
            && body.generation == record.generation;
        let before = self.members.get(&record.member).and_then(|known| known.entry.as_ref());
        let same = before
            .is_some_and(|before| before.body == *body && before.signature == entry.signature);
        let genuine = || {
            let (epoch, secret) = self.secrets.current();
            entry.epoch == epoch && entry.is_genuine(secret)
        };
        (fits && (same || genuine())).then(|| entry.clone())
    }

    /// Vouches in `members` for the entries that are believed here, under our newest secret.
    pub(crate) fn vouch(&self, members: &mut [MemberRecord]) {
        let (epoch, secret) = self.secrets.current();
        for entry in members.iter_mut().filter_map(|record| record.entry.as_mut()) {
            let known = self.members.get(&entry.body.member).and_then(|known| known.entry.as_ref());
            if known.is_some_and(|known| known.body == entry.body) {
                *entry = entry.clone().vouch(secret, epoch);
            }
        }
    }

    /// After a new epoch: entries that could not be checked before may be genuine under it.
    fn review(&mut self) {
        let records: Vec<_> = self.members.values().map(|known| known.record.clone()).collect();
        records.iter().for_each(|record| self.handle_member(record));
    }

    fn is_signed(&self, kick: &KickRecord, keys: &impl SigningKeys) -> bool {
        kick.session == self.session && kick.verify(keys).is_ok()
    }

    /// A signed kick ends the generations before its own at once.
    fn raise_generation(&mut self, kick: &KickRecord) {
        let lowest = self.generations.entry(kick.member).or_insert(kick.generation);
        *lowest = (*lowest).max(kick.generation);
        let lowest = *lowest;
        let gone = |known: &Known| known.record.generation < lowest;
        if kick.member != self.us && self.members.get(&kick.member).is_some_and(gone) {
            self.members.remove(&kick.member);
        }
    }

    pub(crate) fn is_behind(&self) -> bool {
        self.announced > self.epoch()
    }

    pub(crate) const fn epoch(&self) -> Epoch {
        self.secrets.current().0
    }

    pub(crate) const fn secret(&self) -> &PartySecret {
        self.secrets.current().1
    }

    pub(crate) fn secrets(&self) -> Vec<(Epoch, PartySecret)> {
        self.secrets.to_vec()
    }

    pub(crate) const fn private(&self) -> &StaticSecret {
        &self.private
    }

    pub(crate) fn key(&self) -> TunnelKey {
        TunnelKey(PublicKey::from(&self.private).to_bytes())
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Known> {
        self.members.values()
    }

    pub(crate) fn member(&self, member: Member) -> Option<&Known> {
        self.members.get(&member)
    }

    /// Other members with a genuine entry.
    pub(crate) fn others(&self) -> impl Iterator<Item = (&Known, &Entry)> {
        let us = self.us;
        self.members
            .values()
            .filter(move |known| known.record.member != us)
            .filter_map(|known| Some((known, known.entry.as_ref()?)))
    }
}

const fn may_kick(role: Role) -> bool {
    match role {
        Role::Owner | Role::Promoted => true,
        Role::Member => false,
    }
}
