use std::collections::BTreeMap;
use std::num::NonZeroU64;

use lanrage_proto::wire::{Malformed, Reader, Writer};
use lanrage_proto::{Member, RateClass, SessionId};

use super::Binder;
use crate::classes::{ClassLimits, Classes, Limits, TICKET_CLASSES};

/// What an operator says in place of what a rate class says, in units a second; `None`: as the class says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Frames received.
    pub packets: Option<NonZeroU64>,
    /// Bytes received, and bytes of copies sent.
    pub bytes: Option<NonZeroU64>,
    /// Copies of broadcasts sent.
    pub copies: Option<NonZeroU64>,
}

/// A cap that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// Whose leases it is about.
    pub session: SessionId,
    /// Of this member's lease, or of all leases of the session together.
    pub member: Option<Member>,
    /// What they may send.
    pub caps: Caps,
}

/// Why a cap was not set. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapError {
    /// Each different combination of a rate class and caps takes one of 128 slots.
    #[error(
        "128 different combinations of caps are in use: lift one, or use the figures of another"
    )]
    TooMany,
}

/// What a lease's rate class byte stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Combination {
    class: u8,
    lease: Caps,
    session: Caps,
}

/// Where caps are kept. They last until they are lifted or the relay ends.
#[derive(Debug)]
pub(super) struct Standing {
    sessions: BTreeMap<SessionId, Caps>,
    leases: BTreeMap<(SessionId, Member), Caps>,
    /// By class, from [`TICKET_CLASSES`] on.
    slots: [Option<Combination>; SLOTS],
}

const SLOTS: usize = 256 - TICKET_CLASSES as usize;

impl Default for Standing {
    fn default() -> Self {
        Self { sessions: BTreeMap::new(), leases: BTreeMap::new(), slots: [None; SLOTS] }
    }
}

impl Caps {
    fn over(self, limits: Limits) -> Limits {
        Limits {
            packets: self.packets.or(limits.packets),
            bytes: self.bytes.or(limits.bytes),
            copies: self.copies.or(limits.copies),
        }
    }
}

impl Combination {
    fn install(&self, slot: u8, classes: &Classes) {
        let of = classes.limits(self.class);
        let (lease, session) = (self.lease.over(of.lease), self.session.over(of.session));
        classes.set(slot, &ClassLimits { lease, session });
    }
}

impl Standing {
    fn combination(&self, of: SessionId, who: Option<Member>, ticket: RateClass) -> Combination {
        let lease = who.and_then(|who| self.leases.get(&(of, who)));
        let session = self.sessions.get(&of);
        Combination {
            class: known(ticket),
            lease: lease.copied().unwrap_or_default(),
            session: session.copied().unwrap_or_default(),
        }
    }

    /// The class of the ticket behind the class of a lease.
    pub(super) fn ticket_class(&self, class: u8) -> RateClass {
        let slot = class.checked_sub(TICKET_CLASSES).map(usize::from);
        RateClass(slot.map_or(class, |at| self.slots[at].unwrap_or_default().class))
    }

    /// Whether a lease of this class has what a ticket of that class gives.
    pub(super) fn is_of(&self, class: u8, ticket: RateClass) -> bool {
        self.ticket_class(class) == RateClass(known(ticket))
    }

    /// Caps of sessions, caps of leases, slots: each its count and entries.
    pub(super) fn freeze(&self, out: Writer) -> Writer {
        let caps = |out: Writer, caps: &Caps| {
            [caps.packets, caps.bytes, caps.copies]
                .into_iter()
                .fold(out, |out, units| out.u64(units.map_or(0, NonZeroU64::get)))
        };
        let out = out.u32(self.sessions.len() as u32);
        let out = self.sessions.iter().fold(out, |out, (of, said)| caps(out.u64(of.0), said));
        let out =
            self.leases.iter().fold(out.u32(self.leases.len() as u32), |out, ((of, who), said)| {
                caps(out.u64(of.0).u8(who.number()), said)
            });
        let used = (0..).zip(&self.slots).filter_map(|(at, slot)| Some((at, slot.as_ref()?)));
        used.clone().fold(out.u32(used.count() as u32), |out, (at, slot)| {
            caps(caps(out.u8(at).u8(slot.class), &slot.lease), &slot.session)
        })
    }

    /// The inverse of [`Standing::freeze`].
    pub(super) fn thaw(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bad = || Malformed("caps");
        let caps = |reader: &mut Reader<'_>| {
            let mut units = || Ok::<_, Malformed>(NonZeroU64::new(reader.u64()?));
            Ok::<_, Malformed>(Caps { packets: units()?, bytes: units()?, copies: units()? })
        };
        let mut standing = Self::default();
        for _ in 0..reader.u32()? {
            standing.sessions.insert(SessionId(reader.u64()?), caps(reader)?);
        }
        for _ in 0..reader.u32()? {
            let of = SessionId(reader.u64()?);
            let who = Member::new(reader.u8()?).ok_or_else(bad)?;
            standing.leases.insert((of, who), caps(reader)?);
        }
        for _ in 0..reader.u32()? {
            let (at, class) = (usize::from(reader.u8()?), reader.u8()?);
            let combination = Combination { class, lease: caps(reader)?, session: caps(reader)? };
            *standing.slots.get_mut(at).ok_or_else(bad)? = Some(combination);
        }
        Ok(standing)
    }

    /// Makes the classes of the slots what they stand for.
    pub(super) fn install(&self, classes: &Classes) {
        for (slot, combination) in (TICKET_CLASSES..=u8::MAX).zip(&self.slots) {
            if let Some(combination) = combination {
                combination.install(slot, classes);
            }
        }
    }

    /// What leases to come need, at least: one of class 0 for each cap.
    fn needed(&self) -> impl Iterator<Item = Combination> {
        let of_session = |session: &SessionId| (*session, None);
        let of_lease = |(session, member): &(SessionId, Member)| (*session, Some(*member));
        let caps = self.sessions.keys().map(of_session).chain(self.leases.keys().map(of_lease));
        caps.map(|(of, who)| self.combination(of, who, RateClass(0)))
    }
}

impl Binder {
    /// Caps all leases of a session together, those to come too, or lifts that cap.
    ///
    /// # Errors
    /// See [`CapError`].
    pub fn set_session_cap(&mut self, of: SessionId, caps: Option<Caps>) -> Result<(), CapError> {
        let former = put(&mut self.standing.sessions, of, caps);
        self.apply(of).inspect_err(|_| {
            put(&mut self.standing.sessions, of, former);
            self.restore(of);
        })
    }

    /// Caps a member's lease, also the next it gets, or lifts that cap.
    ///
    /// # Errors
    /// See [`CapError`].
    pub fn set_lease_cap(
        &mut self,
        of: SessionId,
        who: Member,
        caps: Option<Caps>,
    ) -> Result<(), CapError> {
        let former = put(&mut self.standing.leases, (of, who), caps);
        self.apply(of).inspect_err(|_| {
            put(&mut self.standing.leases, (of, who), former);
            self.restore(of);
        })
    }

    /// The caps that stand.
    pub fn caps(&self) -> impl Iterator<Item = Cap> {
        let sessions = self.standing.sessions.iter();
        let sessions =
            sessions.map(|(session, caps)| Cap { session: *session, member: None, caps: *caps });
        let leases = self.standing.leases.iter();
        sessions.chain(leases.map(|((session, member), caps)| Cap {
            session: *session,
            member: Some(*member),
            caps: *caps,
        }))
    }

    /// The rate class of a lease to come. When no slot is left for it, it is the one of class 0 with
    /// the same caps.
    pub(super) fn class_of(&mut self, of: SessionId, who: Member, ticket: RateClass) -> u8 {
        let wanted = self.standing.combination(of, Some(who), ticket);
        self.slots([wanted])
            .or_else(|_| self.slots([Combination { class: 0, ..wanted }]))
            .map_or(0, |classes| classes[0])
    }

    /// Gives the leases of a session the classes that its caps ask for.
    fn apply(&mut self, of: SessionId) -> Result<(), CapError> {
        let needed: Vec<_> = self.standing.needed().collect();
        let (mut handles, mut wanted) = (Vec::new(), Vec::new());
        for who in Member::all() {
            for (lease, _) in self.member_records(of, who) {
                handles.push(lease.handle);
                let ticket = self.standing.ticket_class(lease.rate_class);
                wanted.push(self.standing.combination(of, Some(who), ticket));
            }
        }
        let classes = self.slots(wanted.into_iter().chain(needed))?;
        for (handle, class) in handles.into_iter().zip(classes) {
            self.table.set_rate_class(handle, class).expect("it was looked up just now");
        }
        Ok(())
    }

    /// After a failure, with what stood before: there was room for it.
    fn restore(&mut self, of: SessionId) {
        self.free_slots();
        self.apply(of).expect("what stood before has its slots");
    }

    /// The classes that stand for the combinations; free slots become those that are missing.
    fn slots(
        &mut self,
        wanted: impl IntoIterator<Item = Combination, IntoIter: Clone>,
    ) -> Result<Vec<u8>, CapError> {
        let wanted = wanted.into_iter();
        let found: Option<Vec<_>> = wanted.clone().map(|wanted| self.slot(wanted)).collect();
        if let Some(classes) = found {
            return Ok(classes);
        }
        self.free_slots();
        wanted.map(|wanted| self.slot(wanted).ok_or(CapError::TooMany)).collect()
    }

    fn slot(&mut self, wanted: Combination) -> Option<u8> {
        let Combination { class, lease, session } = wanted;
        if lease == Caps::default() && session == Caps::default() {
            return Some(class);
        }
        let slots = &mut self.standing.slots;
        let find = |what| slots.iter().position(|slot| *slot == what);
        let (at, is_free) = match find(Some(wanted)) {
            Some(at) => (at, false),
            None => (find(None)?, true),
        };
        let slot = TICKET_CLASSES + at as u8;
        if is_free {
            slots[at] = Some(wanted);
            wanted.install(slot, &self.classes);
        }
        Some(slot)
    }

    /// Frees the slots that no lease has and no cap needs. It looks at the whole table, for an
    /// operator's hand and when slots run out, and so rarely.
    fn free_slots(&mut self) {
        let mut is_used = [false; SLOTS];
        for scanned in self.table.scan(0..self.table.slots()) {
            if let Some(at) = scanned.lease.rate_class.checked_sub(TICKET_CLASSES) {
                is_used[usize::from(at)] = true;
            }
        }
        let needed: Vec<_> = self.standing.needed().collect();
        for (slot, is_used) in self.standing.slots.iter_mut().zip(is_used) {
            *slot = slot.filter(|combination| is_used || needed.contains(combination));
        }
    }
}

/// Classes that no ticket should name are class 0.
const fn known(ticket: RateClass) -> u8 {
    if ticket.0 < TICKET_CLASSES { ticket.0 } else { 0 }
}

fn put<K: Ord>(map: &mut BTreeMap<K, Caps>, key: K, caps: Option<Caps>) -> Option<Caps> {
    match caps {
        Some(caps) => map.insert(key, caps),
        None => map.remove(&key),
    }
}
