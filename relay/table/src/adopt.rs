//! A writer over a table that another one has left: all that a writer knows beside the slabs, rebuilt from them.
//!
//! Every line is checked against the others first, so that no edit of this writer can meet what an edit never leaves.

use std::collections::TryReserveError;

use crate::{
    chain::{self, ChainLine, END, LINES_MAX},
    free::FreeList,
    ids::{ChainHead, Handle, Member},
    index::SessionIndex,
    lease::{Lease, LeaseLine, State},
    memory::{AttachError, Slabs},
    slabs::{Capacity, CapacityError, allocate},
    writer::{NO_RIVAL, Writer},
};

use AttachError::Corrupt;

impl Writer {
    /// # Errors
    /// The table is damaged; an allocation that the system refuses.
    pub(crate) fn adopt(capacity: Capacity, slabs: Slabs) -> Result<Self, AttachError> {
        let mut adoption = Adoption::new(capacity, slabs).map_err(CapacityError::from)?;
        for slot in 0..capacity.leases {
            if let Some(lease) = read(slabs, slot)? {
                adoption.note(&lease)?;
            }
        }
        // A member's second lease is known by its entry naming the first: all entries must be sound before.
        for slot in 0..capacity.leases {
            if let Some(lease) = read(slabs, slot)? {
                adoption.place(&lease)?;
            }
        }
        adoption.finish().map_err(CapacityError::from)?
    }
}

#[derive(Debug)]
struct Adoption {
    slabs: Slabs,
    heads: SessionIndex,
    rivals: Box<[u32]>,
    /// By number, whether a chain has the line; the first is never in one.
    lines_used: Box<[bool]>,
    active: usize,
    pending: usize,
    /// Entries of all chains, and leases that an entry names.
    entries: usize,
    named: usize,
}

impl Adoption {
    fn new(capacity: Capacity, slabs: Slabs) -> Result<Self, TryReserveError> {
        Ok(Self {
            slabs,
            heads: SessionIndex::new(capacity.session_lines)?,
            rivals: allocate(capacity.leases as usize, || NO_RIVAL)?,
            lines_used: allocate(capacity.chain_lines(), || false)?,
            active: 0,
            pending: 0,
            entries: 0,
            named: 0,
        })
    }

    /// Counts a lease, and takes its session's chain if it is the session's first.
    fn note(&mut self, lease: &Lease) -> Result<(), AttachError> {
        match lease.state {
            State::Active => self.active += 1,
            State::Pending => self.pending += 1,
        }
        match self.heads.find(lease.session) {
            Some(head) if head == lease.chain => Ok(()),
            Some(_) => Err(Corrupt("a session has two chains")),
            None => {
                if self.slabs.directory.find(lease.session) != Some(lease.chain) {
                    return Err(Corrupt("a session is not in the directory"));
                }
                self.take_chain(lease.chain)?;
                self.heads.insert(lease.session, lease.chain);
                Ok(())
            }
        }
    }

    /// Marks a chain's lines as used, and sees that no member is in it twice.
    fn take_chain(&mut self, head: ChainHead) -> Result<(), AttachError> {
        let mut seen = [false; Member::MAX as usize + 1];
        let mut number = head.0;
        for _ in 0..LINES_MAX {
            let line = self.slabs.chains.get(number as usize).filter(|_| number != END);
            let line = ChainLine(line.ok_or(Corrupt("a chain leads nowhere"))?);
            if std::mem::replace(&mut self.lines_used[number as usize], true) {
                return Err(Corrupt("two chains share a line"));
            }
            for member in line.members().into_iter().filter(|member| *member != 0) {
                let seen = seen.get_mut(usize::from(member));
                let seen = seen.ok_or(Corrupt("a chain has a member that cannot be"))?;
                if std::mem::replace(seen, true) {
                    return Err(Corrupt("a chain has a member twice"));
                }
                self.entries += 1;
            }
            number = line.next();
            if number == END {
                let is_empty = line.is_empty();
                return if is_empty { Err(Corrupt("a chain ends empty")) } else { Ok(()) };
            }
        }
        Err(Corrupt("a chain is too long"))
    }

    /// Sees that the lease is what its member's entry names, or the pending one beside that.
    fn place(&mut self, lease: &Lease) -> Result<(), AttachError> {
        let place = chain::find(self.slabs.chains, lease.chain, lease.member);
        let named = place.and_then(|place| {
            ChainLine(self.slabs.chains.get(place.line as usize)?).entry(place.entry)
        });
        let (_, named) = named.ok_or(Corrupt("a lease is in no chain"))?;
        if named == lease.handle {
            self.named += 1;
            return Ok(());
        }
        let other = self.slabs.lease(named.index()).and_then(|line| line.read(named).ok());
        let other = other.ok_or(Corrupt("an entry names no lease"))?;
        let are_rivals = (other.session, other.member) == (lease.session, lease.member)
            && (other.state, lease.state) == (State::Active, State::Pending);
        let rival = &mut self.rivals[named.index() as usize];
        if !are_rivals || *rival != NO_RIVAL {
            return Err(Corrupt("a lease contradicts its member's entry"));
        }
        *rival = lease.handle.index();
        self.rivals[lease.handle.index() as usize] = named.index();
        Ok(())
    }

    fn finish(self) -> Result<Result<Writer, AttachError>, TryReserveError> {
        if self.entries != self.named {
            return Ok(Err(Corrupt("an entry names no lease of its member")));
        }
        let mut free_lines = FreeList::with_capacity(self.lines_used.len() - 1)?;
        for (number, is_used) in self.lines_used.iter().enumerate().skip(END as usize + 1) {
            if *is_used {
                continue;
            }
            if !ChainLine(&self.slabs.chains[number]).is_empty() {
                return Ok(Err(Corrupt("a line is full and in no chain")));
            }
            free_lines.put(number as u32);
        }
        let mut free_leases = FreeList::with_capacity(self.rivals.len())?;
        for (slot, line) in self.slabs.leases.iter().enumerate() {
            if LeaseLine(line).is_free() {
                free_leases.put(slot as u32);
            }
        }
        Ok(Ok(Writer {
            slabs: self.slabs,
            free_leases,
            free_lines,
            heads: self.heads,
            rivals: self.rivals,
            active: self.active,
            pending: self.pending,
        }))
    }
}

/// The slot's lease; `None` if it is free.
fn read(slabs: Slabs, slot: u32) -> Result<Option<Lease>, AttachError> {
    let Some(line) = slabs.lease(slot) else { return Ok(None) };
    if line.is_free() {
        return Ok(None);
    }
    let lease = line.read(Handle::new(slot, line.generation()));
    lease.map(Some).map_err(|_| Corrupt("a lease is half written or names what cannot be"))
}
