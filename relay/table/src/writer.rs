//! The binder's side: all edits.
//!
//! A member has at most one active and one pending lease; its chain entry names the active one, if there is one. The
//! order of each edit is what readers rely on: a lease line is whole before an entry names it, and is freed only when
//! no entry names it.

use std::{collections::TryReserveError, ops::Range};

use crate::{
    chain::{self, ChainLine, END, Place},
    endpoint::Endpoint,
    free::FreeList,
    ids::{ChainHead, Handle, Member, SessionId, Tag},
    index::SessionIndex,
    lease::{Lease, LeaseLine, State},
    memory::Slabs,
    owner::{OwnerLine, SessionLine},
    slabs::{Capacity, allocate},
};

/// What a binding asks for.
#[derive(Debug, Clone, Copy)]
pub struct NewLease {
    pub session: SessionId,
    pub member: Member,
    pub endpoint: Endpoint,
    /// Fresh and random.
    pub tag: Tag,
    /// The ticket's rate class; the table only stores it.
    pub rate_class: u8,
}

/// A lease made by [`Writer::insert_pending`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    pub handle: Handle,
    /// The member's former pending lease, which this one has ended.
    pub displaced: Option<Handle>,
}

/// The leases of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemberLeases {
    pub active: Option<Handle>,
    pub pending: Option<Handle>,
}

/// A lease met by [`Writer::scan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    pub lease: Lease,
    /// Milliseconds since the relay's start; of a lease without frames, when it was inserted.
    pub last_seen_ms: u64,
}

/// What is in use and what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub active: usize,
    pub pending: usize,
    pub sessions: usize,
    pub free_leases: usize,
    pub free_session_lines: usize,
}

/// The table has no room. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("every lease of the table is in use: raise the number of leases or add a relay")]
    Leases,
    #[error("every session line of the table is in use: raise the number of leases or add a relay")]
    SessionLines,
}

/// The handle names no lease. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the handle names no lease: it was released or replaced")]
pub struct Stale;

/// The one owner of all edits.
#[derive(Debug)]
pub struct Writer {
    pub(crate) slabs: Slabs,
    pub(crate) free_leases: FreeList,
    pub(crate) free_lines: FreeList,
    pub(crate) heads: SessionIndex,
    /// By slot: the slot of the same member's other lease, or [`NO_RIVAL`].
    pub(crate) rivals: Box<[u32]>,
    pub(crate) active: usize,
    pub(crate) pending: usize,
}

pub(crate) const NO_RIVAL: u32 = u32::MAX;

impl Writer {
    pub(crate) fn new(capacity: Capacity, slabs: Slabs) -> Result<Self, TryReserveError> {
        Ok(Self {
            slabs,
            free_leases: FreeList::new(0..capacity.leases)?,
            free_lines: FreeList::new(END + 1..capacity.session_lines + 1)?,
            heads: SessionIndex::new(capacity.session_lines)?,
            rivals: allocate(capacity.leases as usize, || NO_RIVAL)?,
            active: 0,
            pending: 0,
        })
    }

    pub(crate) const fn footprint(capacity: Capacity) -> usize {
        FreeList::footprint(capacity.leases)
            + FreeList::footprint(capacity.session_lines)
            + capacity.leases as usize * size_of::<u32>()
    }

    /// Makes a lease that becomes the member's only by [`activate`](Self::activate). A pending lease that the member
    /// already has is released. `random` chooses the slot.
    ///
    /// # Errors
    /// `Leases`, `SessionLines`: none is free.
    pub fn insert_pending(
        &mut self,
        new: &NewLease,
        random: u64,
        now_ms: u64,
    ) -> Result<Inserted, Full> {
        let MemberLeases { active, pending: displaced } = self.lookup(new.session, new.member);
        if let Some(displaced) = displaced {
            self.release(displaced).expect("lookup returns live leases");
        }
        // Cannot fail once a lease was displaced: its slot is free, and its entry if the member has no other lease.
        if self.free_leases.len() == 0 {
            return Err(Full::Leases);
        }
        let (chain, entry) = match active {
            Some(active) => (self.lease(active).expect("lookup returns live leases").chain, None),
            None => self.make_entry(new.session).map(|(chain, place)| (chain, Some(place)))?,
        };
        let slot = self.free_leases.take_random(random).expect("checked above");
        let line = LeaseLine(&self.slabs.leases[slot as usize]);
        let handle = Handle::new(slot, line.generation());

        // Before the lease line, whose release store publishes it.
        OwnerLine(&self.slabs.owners[slot as usize]).reset(now_ms);
        line.write(&Lease {
            handle,
            session: new.session,
            endpoint: new.endpoint,
            previous: None,
            tag: new.tag,
            chain,
            member: new.member,
            rate_class: new.rate_class,
            state: State::Pending,
        });
        if let Some(Place { line, entry }) = entry {
            self.chain_line(line).insert(entry, new.member, handle);
        }
        if let Some(active) = active {
            self.rivals[slot as usize] = active.index();
            self.rivals[active.index() as usize] = slot;
        }
        self.pending += 1;
        Ok(Inserted { handle, displaced })
    }

    /// Makes a pending lease the member's own. Returns the lease it has replaced, which is released. An active lease
    /// stays as it is, so that a repeated report does no harm.
    ///
    /// # Errors
    /// No such lease.
    pub fn activate(&mut self, handle: Handle) -> Result<Option<Handle>, Stale> {
        let lease = self.lease(handle).ok_or(Stale)?;
        if lease.state == State::Active {
            return Ok(None);
        }
        self.line(handle).activate();
        self.pending -= 1;
        self.active += 1;
        let replaced = self.rival(handle);
        if let Some(replaced) = replaced {
            self.set_entry(&lease, handle);
            self.part(handle, replaced);
            self.free_slot(replaced, State::Active);
        }
        Ok(replaced)
    }

    /// Moves a lease to a new address. The one it had is accepted until [`settle_address`](Self::settle_address); an
    /// older one is not. The same address again changes nothing.
    ///
    /// # Errors
    /// No such lease.
    pub fn rebind(&mut self, handle: Handle, endpoint: Endpoint) -> Result<(), Stale> {
        let lease = self.lease(handle).ok_or(Stale)?;
        if lease.endpoint != endpoint {
            self.line(handle).write(&Lease { endpoint, previous: Some(lease.endpoint), ..lease });
        }
        Ok(())
    }

    /// Ends the acceptance of the address before a rebind.
    ///
    /// # Errors
    /// No such lease.
    pub fn settle_address(&mut self, handle: Handle) -> Result<(), Stale> {
        self.lease(handle).ok_or(Stale)?;
        self.line(handle).settle_address();
        Ok(())
    }

    /// Changes what a lease may send.
    ///
    /// # Errors
    /// No such lease.
    pub fn set_rate_class(&mut self, handle: Handle, rate_class: u8) -> Result<(), Stale> {
        let lease = self.lease(handle).ok_or(Stale)?;
        if lease.rate_class != rate_class {
            self.line(handle).set_rate_class(rate_class);
            // What the buckets owe was reckoned by the former class.
            OwnerLine(&self.slabs.owners[handle.index() as usize]).empty_buckets();
            SessionLine(&self.slabs.sessions[lease.chain.0 as usize]).reset();
        }
        Ok(())
    }

    /// Ends a lease. The other lease of its member stays.
    ///
    /// # Errors
    /// No such lease.
    pub fn release(&mut self, handle: Handle) -> Result<(), Stale> {
        let lease = self.lease(handle).ok_or(Stale)?;
        match (self.rival(handle), lease.state) {
            (Some(rival), State::Active) => {
                self.set_entry(&lease, rival);
                self.part(handle, rival);
            }
            (Some(rival), State::Pending) => self.part(handle, rival),
            (None, _) => self.remove_entry(&lease),
        }
        self.free_slot(handle, lease.state);
        Ok(())
    }

    /// A member's leases.
    #[must_use]
    pub fn lookup(&self, session: SessionId, member: Member) -> MemberLeases {
        let named = self.heads.find(session).and_then(|head| {
            let Place { line, entry } = chain::find(self.slabs.chains, head, member)?;
            self.chain_line(line).entry(entry)
        });
        let Some((_, handle)) = named else {
            return MemberLeases::default();
        };
        match self.lease(handle).map(|lease| lease.state) {
            Some(State::Active) => {
                MemberLeases { active: Some(handle), pending: self.rival(handle) }
            }
            Some(State::Pending) => MemberLeases { active: None, pending: Some(handle) },
            None => MemberLeases::default(),
        }
    }

    /// The lease of a handle.
    #[must_use]
    pub fn lease(&self, handle: Handle) -> Option<Lease> {
        // Never torn: nobody else writes.
        self.slabs.lease(handle.index())?.read(handle).ok()
    }

    /// What the shards wrote about a slot's lease.
    #[must_use]
    pub fn owner(&self, handle: Handle) -> Option<OwnerLine<'_>> {
        self.lease(handle)?;
        self.slabs.owners.get(handle.index() as usize).map(OwnerLine)
    }

    /// The leases in a range of slots, of which there are `0..`[`slots`](Self::slots). Sweep a part at a time, and
    /// release afterwards what has expired.
    pub fn scan(&self, slots: Range<u32>) -> impl Iterator<Item = Scanned> {
        let end = slots.end.min(self.slots());
        (slots.start..end).filter_map(|slot| {
            let generation = LeaseLine(&self.slabs.leases[slot as usize]).generation();
            let lease = self.lease(Handle::new(slot, generation))?;
            let last_seen_ms = OwnerLine(&self.slabs.owners[slot as usize]).last_seen_ms();
            Some(Scanned { lease, last_seen_ms })
        })
    }

    /// Slots of the table, used or not.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.rivals.len() as u32
    }

    /// How much the table holds.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        Capacity { leases: self.slots(), session_lines: self.slabs.chains.len() as u32 - 1 }
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            active: self.active,
            pending: self.pending,
            sessions: self.heads.len(),
            free_leases: self.free_leases.len(),
            free_session_lines: self.free_lines.len(),
        }
    }

    /// An unused entry in the session's chain, which is begun or extended if need be.
    fn make_entry(&mut self, session: SessionId) -> Result<(ChainHead, Place), Full> {
        let Some(head) = self.heads.find(session) else {
            let line = self.take_line()?;
            let head = ChainHead(line);
            SessionLine(&self.slabs.sessions[line as usize]).reset();
            self.heads.insert(session, head);
            self.slabs.directory.insert(session, head);
            return Ok((head, Place { line, entry: 0 }));
        };
        let mut last = head.0;
        for (line, at) in chain::walk(self.slabs.chains, head) {
            if let Some(entry) = at.members().iter().position(|number| *number == 0) {
                return Ok((head, Place { line, entry }));
            }
            last = line;
        }
        let line = self.take_line()?;
        self.chain_line(last).set_next(line);
        Ok((head, Place { line, entry: 0 }))
    }

    /// Points the member's entry at another of its leases.
    fn set_entry(&self, lease: &Lease, handle: Handle) {
        if let Some(Place { line, entry }) =
            chain::find(self.slabs.chains, lease.chain, lease.member)
        {
            self.chain_line(line).set_handle(entry, handle);
        }
    }

    /// Removes the member's entry, the empty lines at the chain's end, and the session if no line is left.
    fn remove_entry(&mut self, lease: &Lease) {
        if let Some(Place { line, entry }) =
            chain::find(self.slabs.chains, lease.chain, lease.member)
        {
            self.chain_line(line).remove(entry);
        }
        let last =
            chain::walk(self.slabs.chains, lease.chain).filter(|(_, line)| !line.is_empty()).last();
        let mut number = match last {
            Some((_, line)) => {
                let rest = line.next();
                if rest != END {
                    line.set_next(END);
                }
                rest
            }
            None => {
                self.heads.remove(lease.session);
                self.slabs.directory.remove(lease.session, lease.chain);
                lease.chain.0
            }
        };
        while number != END {
            let next = self.chain_line(number).next();
            self.free_lines.put(number);
            number = next;
        }
    }

    fn take_line(&mut self) -> Result<u32, Full> {
        let number = self.free_lines.take().ok_or(Full::SessionLines)?;
        // Its entries were removed before it was freed.
        self.chain_line(number).set_next(END);
        Ok(number)
    }

    fn free_slot(&mut self, handle: Handle, was: State) {
        self.line(handle).free();
        self.free_leases.put(handle.index());
        match was {
            State::Pending => self.pending -= 1,
            State::Active => self.active -= 1,
        }
    }

    fn rival(&self, handle: Handle) -> Option<Handle> {
        let slot = self.rivals[handle.index() as usize];
        (slot != NO_RIVAL)
            .then(|| Handle::new(slot, LeaseLine(&self.slabs.leases[slot as usize]).generation()))
    }

    fn part(&mut self, one: Handle, other: Handle) {
        self.rivals[one.index() as usize] = NO_RIVAL;
        self.rivals[other.index() as usize] = NO_RIVAL;
    }

    fn line(&self, handle: Handle) -> LeaseLine<'static> {
        LeaseLine(&self.slabs.leases[handle.index() as usize])
    }

    fn chain_line(&self, number: u32) -> ChainLine<'static> {
        ChainLine(&self.slabs.chains[number as usize])
    }
}
