//! The shards' side: wait-free lookups.

use std::hint::black_box;

use crate::{
    chain::{self, ChainLine, END, ENTRIES, LINES_MAX, Place},
    endpoint::Endpoint,
    ids::{ChainHead, Handle, Member, SessionId},
    lease::{Lease, LeaseLine, State},
    memory::Slabs,
    owner::{OwnerLine, SessionLine},
};

/// Looks at an entry before its lease is reported torn. Each further look means that the member's lease was replaced
/// between two loads of this reader.
const ENTRY_TRIES: usize = if cfg!(loom) { 2 } else { 4 };

/// Why a lookup found nothing. The crate's documentation says what each means for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    #[error("no such lease")]
    Absent,
    #[error("the lease was being changed on every look")]
    Torn,
}

/// The lease was being changed on every look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease was being changed on every look")]
pub struct Torn;

impl From<Torn> for Miss {
    fn from(_: Torn) -> Self {
        Self::Torn
    }
}

/// A frame's lease and what its frames are charged to.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub lease: Lease,
    pub owner: OwnerLine<'a>,
    pub session: SessionLine<'a>,
}

/// An active lease to send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub handle: Handle,
    pub member: Member,
    pub endpoint: Endpoint,
    /// See [`Lease::rate_class`].
    pub rate_class: u8,
}

/// A shard's view of the table.
#[derive(Debug, Clone)]
pub struct Reader {
    slabs: Slabs,
}

impl Reader {
    pub(crate) fn new(slabs: Slabs) -> Self {
        Self { slabs }
    }

    /// The lease of a received handle. Tag, address and member are the caller's to compare, on this one snapshot.
    ///
    /// # Errors
    /// `Absent`: index out of range, slot free, or of another generation. `Torn`: see [`Miss`].
    #[inline]
    pub fn source(&self, handle: Handle) -> Result<Source<'_>, Miss> {
        let lease = self.lease(handle)?;
        let owner = self.slabs.owners.get(handle.index() as usize).ok_or(Miss::Absent)?;
        let session = self.slabs.sessions.get(lease.chain.0 as usize).ok_or(Miss::Absent)?;
        Ok(Source { lease, owner: OwnerLine(owner), session: SessionLine(session) })
    }

    /// The active lease of a member of the session that this chain belongs to.
    ///
    /// A member whose lease is replaced meanwhile is found, by the old lease or by the new.
    ///
    /// # Errors
    /// `Absent`: that member has no active lease, or the chain is no longer this session's. `Torn`: see [`Miss`].
    #[inline]
    pub fn peer(
        &self,
        chain: ChainHead,
        session: SessionId,
        member: Member,
    ) -> Result<Target, Miss> {
        let place = chain::find(self.slabs.chains, chain, member).ok_or(Miss::Absent)?;
        self.target(place, session, |named| named == member)
    }

    /// The chain of a session, for a frame that names no lease: a hint that [`peer`](Self::peer) and
    /// [`members`](Self::members) check.
    #[inline]
    #[must_use]
    pub fn chain(&self, session: SessionId) -> Option<ChainHead> {
        self.slabs.directory.find(session)
    }

    /// What the members of a session are charged to together.
    #[inline]
    #[must_use]
    pub fn session_line(&self, chain: ChainHead) -> Option<SessionLine<'_>> {
        self.slabs.sessions.get(chain.0 as usize).map(SessionLine)
    }

    /// The active leases of a session from a cursor on.
    ///
    /// A member with an active lease from the first call to the last is returned exactly once, as a target or as
    /// [`Torn`]. One that comes or goes meanwhile may be returned or not, but no lease is returned twice.
    pub fn members(&self, session: SessionId, cursor: Cursor) -> Members<'_> {
        Members { reader: self, session, cursor }
    }

    /// Loads the lease and owner lines of a batch of sources, so that their cache misses overlap.
    pub fn touch_sources(&self, handles: impl IntoIterator<Item = Handle>) {
        let slabs = self.slabs;
        touch(handles, |handle| {
            let at = handle.index() as usize;
            Some(
                LeaseLine(slabs.leases.get(at)?).touch() ^ OwnerLine(slabs.owners.get(at)?).touch(),
            )
        });
    }

    /// Loads the session and first chain lines of a batch of sources whose own lines are loaded.
    pub fn touch_sessions(&self, handles: impl IntoIterator<Item = Handle>) {
        let slabs = self.slabs;
        touch(handles, |handle| {
            let ChainHead(at) = slabs.lease(handle.index())?.chain_hint();
            let at = at as usize;
            Some(
                ChainLine(slabs.chains.get(at)?).touch()
                    ^ SessionLine(slabs.sessions.get(at)?).touch(),
            )
        });
    }

    /// Loads the lease lines of whom a batch of sources send to, once their sessions' lines are loaded.
    pub fn touch_peers(&self, frames: impl IntoIterator<Item = (Handle, Member)>) {
        let slabs = self.slabs;
        touch(frames, |(handle, member)| {
            let chain = slabs.lease(handle.index())?.chain_hint();
            let place = chain::find(slabs.chains, chain, member)?;
            let (_, handle) =
                ChainLine(slabs.chains.get(place.line as usize)?).entry(place.entry)?;
            Some(slabs.lease(handle.index())?.touch())
        });
    }

    #[inline]
    fn lease(&self, handle: Handle) -> Result<Lease, Miss> {
        self.slabs.lease(handle.index()).ok_or(Miss::Absent)?.read(handle)
    }

    /// What the entry names, if it is an active lease of the session and of the member that the entry says.
    ///
    /// The writer points the entry at a new lease before it frees the old one. So a handle that fails while the entry
    /// has not changed is no lease of a member who is there, and one that fails while it has changed gets another look.
    #[inline]
    fn target(
        &self,
        place: Place,
        session: SessionId,
        is_wanted: impl Fn(Member) -> bool,
    ) -> Result<Target, Miss> {
        let line = ChainLine(self.slabs.chains.get(place.line as usize).ok_or(Miss::Absent)?);
        let mut entry = line.entry(place.entry);
        for _ in 0..ENTRY_TRIES {
            let (member, handle) =
                entry.filter(|(member, _)| is_wanted(*member)).ok_or(Miss::Absent)?;
            match self.lease(handle) {
                Ok(Lease {
                    endpoint,
                    state: State::Active,
                    session: of,
                    member: who,
                    rate_class,
                    ..
                }) if of == session && who == member => {
                    return Ok(Target { handle, member, endpoint, rate_class });
                }
                Ok(_) | Err(Miss::Absent) => {}
                Err(Miss::Torn) => return Err(Miss::Torn),
            }
            let again = line.entry(place.entry);
            if again == entry {
                return Err(Miss::Absent);
            }
            entry = again;
        }
        Err(Miss::Torn)
    }
}

/// Where a walk over a session's members stands. It may be kept between passes for as long as one likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    line: u32,
    entry: u8,
    lines_left: u8,
}

impl Cursor {
    /// Before the first member.
    #[must_use]
    pub fn start(chain: ChainHead) -> Self {
        Self { line: chain.0, entry: 0, lines_left: LINES_MAX as u8 }
    }

    /// Whether the walk is over.
    #[must_use]
    pub fn is_done(self) -> bool {
        self.line == END || self.lines_left == 0
    }
}

/// A walk over a session's members; made by [`Reader::members`]. Take as many as a pass may send, then keep the cursor.
#[derive(Debug)]
pub struct Members<'a> {
    reader: &'a Reader,
    session: SessionId,
    cursor: Cursor,
}

impl Members<'_> {
    /// Where the next pass goes on.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }
}

impl Iterator for Members<'_> {
    type Item = Result<Target, Torn>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.cursor.is_done() {
            let Cursor { line, entry, lines_left } = self.cursor;
            if usize::from(entry) == ENTRIES {
                let next = ChainLine(self.reader.slabs.chains.get(line as usize)?).next();
                self.cursor = Cursor { line: next, entry: 0, lines_left: lines_left - 1 };
                continue;
            }
            self.cursor.entry += 1;
            let place = Place { line, entry: usize::from(entry) };
            match self.reader.target(place, self.session, |_| true) {
                Ok(target) => return Some(Ok(target)),
                Err(Miss::Torn) => return Some(Err(Torn)),
                Err(Miss::Absent) => {}
            }
        }
        None
    }
}

fn touch<T>(items: impl IntoIterator<Item = T>, load: impl Fn(T) -> Option<u64>) {
    black_box(items.into_iter().filter_map(load).fold(0, |sum, word| sum ^ word));
}
