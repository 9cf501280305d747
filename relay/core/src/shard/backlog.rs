use lanrage_proto::frame::DATAGRAM_LEN_MAX;
use lanrage_relay_table::{ChainHead, Cursor, Handle, Member, SessionId};

/// A broadcast that has not been copied to every member yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broadcast {
    pub(super) session: SessionId,
    /// Gets no copy.
    pub(super) source: Member,
    pub(super) payer: Payer,
    pub(super) rate_class: u8,
    /// The next member.
    pub(super) cursor: Cursor,
    /// It may have gone to somebody.
    pub(super) has_begun: bool,
}

/// Whose buckets pay for the copies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payer {
    /// The sender's lease's and its session's.
    Lease(Handle),
    /// The session's alone: the sender's lease is at another relay.
    Session(ChainHead),
}

/// Broadcasts in the order they came, with their bytes: a ring of fixed slots.
#[derive(Debug)]
pub(super) struct Backlog {
    slots: Box<[Slot]>,
    /// By slot, so that counting a session's does not touch the slots.
    sessions: Box<[u64]>,
    first: usize,
    len: usize,
}

#[derive(Debug)]
struct Slot {
    broadcast: Option<Broadcast>,
    bytes: [u8; DATAGRAM_LEN_MAX],
    len: usize,
}

impl Backlog {
    pub(super) fn new(slots: usize) -> Self {
        let slot = || Slot { broadcast: None, bytes: [0; DATAGRAM_LEN_MAX], len: 0 };
        Self {
            slots: (0..slots).map(|_| slot()).collect(),
            sessions: vec![0; slots].into(),
            first: 0,
            len: 0,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether one more of the session's may wait: a session has at most as many as there is room
    /// for, so that a loud one leaves half to others, and less the more are loud (A. K. Choudhury
    /// and E. L. Hahne, "Dynamic queue length thresholds", IEEE/ACM Trans. Networking 6(2), 1998).
    pub(super) fn has_room(&self, session: SessionId) -> bool {
        let (wrapped, waiting) = self.sessions.split_at(self.first);
        let until_end = self.len.min(waiting.len());
        let waiting = waiting[..until_end].iter().chain(&wrapped[..self.len - until_end]);
        let own = waiting.filter(|other| **other == session.0).count();
        let free = self.slots.len() - self.len;
        free > 0 && own <= free
    }

    /// The caller has seen that there is room; `frame` is at most a datagram long.
    pub(super) fn push(&mut self, broadcast: Broadcast, frame: &[u8]) {
        debug_assert!(self.len < self.slots.len());
        let at = (self.first + self.len) % self.slots.len();
        self.sessions[at] = broadcast.session.0;
        let slot = &mut self.slots[at];
        slot.broadcast = Some(broadcast);
        slot.bytes[..frame.len()].copy_from_slice(frame);
        slot.len = frame.len();
        self.len += 1;
    }

    pub(super) fn front(&mut self) -> Option<(&mut Broadcast, &[u8])> {
        let Slot { broadcast, bytes, len } = &mut self.slots[self.first];
        Some((broadcast.as_mut()?, &bytes[..*len]))
    }

    pub(super) fn pop(&mut self) {
        if self.slots[self.first].broadcast.take().is_some() {
            self.first = (self.first + 1) % self.slots.len();
            self.len -= 1;
        }
    }
}
