use lanrage_relay_table::{Cursor, Endpoint, Handle, Lease, Miss, Reader};

use super::backlog::Broadcast;
use super::{Counters, Shard, Verdict, charge};
use crate::classes::Classes;
use crate::drops::DropReason;

impl Shard {
    /// Finds the first targets of a broadcast and puts it into the backlog when there are more
    /// members than this pass may still serve. While others wait it waits behind them, so a
    /// broadcast that finds the backlog full has gone to nobody.
    pub(super) fn broadcast(&mut self, lease: &Lease, frame: &[u8]) -> Verdict {
        self.targets.clear();
        let mut broadcast = Broadcast {
            session: lease.session,
            source: lease.member,
            handle: lease.handle,
            rate_class: lease.rate_class,
            cursor: Cursor::start(lease.chain),
            has_begun: self.backlog.is_empty(),
        };
        if !self.backlog.is_empty() && !self.backlog.has_room(lease.session) {
            return self.counters.drop(DropReason::BroadcastBacklog, 1);
        }
        while self.backlog.is_empty() && self.targets.len() < self.copies_left {
            match next_target(&self.table, &mut broadcast, &mut self.counters) {
                Some(to) => self.targets.push(to),
                None => break,
            }
        }
        if !broadcast.cursor.is_done() {
            self.counters.deferred += 1;
            self.backlog.push(broadcast, frame);
        }
        let copies = self.targets.len();
        self.copies_left -= copies;
        self.counters.broadcast += 1;
        self.count_copies(lease.handle, lease.rate_class, copies, frame.len());
        Verdict::Copy
    }

    /// The target of the backlog's next copy, of the broadcast at its front.
    pub(super) fn next_copy(&mut self) -> Option<Endpoint> {
        while self.copies_left > 0 {
            let (broadcast, frame) = self.backlog.front()?;
            let (handle, rate_class, len) = (broadcast.handle, broadcast.rate_class, frame.len());
            if !std::mem::replace(&mut broadcast.has_begun, true)
                && !may_begin(&self.table, &self.classes, broadcast, self.now_ms)
            {
                self.counters.broadcasts_cut += 1;
                self.backlog.pop();
                continue;
            }
            match next_target(&self.table, broadcast, &mut self.counters) {
                Some(to) => {
                    self.copies_left -= 1;
                    self.count_copies(handle, rate_class, 1, len);
                    return Some(to);
                }
                None => self.backlog.pop(),
            }
        }
        None
    }

    /// Counts copies, and charges them while their sender still has its lease.
    fn count_copies(&mut self, handle: Handle, rate_class: u8, copies: usize, len: usize) {
        let copies = copies as u64;
        self.counters.copies += copies;
        self.counters.planned += copies;
        self.egress.count(copies, copies * len as u64);
        if let Ok(from) = self.table.source(handle) {
            let bytes = copies * len as u64;
            charge::copies(self.classes.of(rate_class), &from, self.now_ms, copies, bytes);
            self.egress.charge(&from, self.now_ms, copies, bytes);
        }
    }
}

/// Whether the sender of a broadcast that waited has its lease still, and copies left: those of its
/// broadcasts before this one were made, and charged, after this one was admitted.
fn may_begin(table: &Reader, classes: &Classes, broadcast: &Broadcast, now_ms: u64) -> bool {
    match table.source(broadcast.handle) {
        Ok(from) => {
            let has = charge::has_copies(classes.of(broadcast.rate_class), &from, now_ms);
            has.lease && has.session
        }
        Err(Miss::Torn) => true,
        Err(Miss::Absent) => false,
    }
}

/// The next member but the source.
fn next_target(
    table: &Reader,
    broadcast: &mut Broadcast,
    counters: &mut Counters,
) -> Option<Endpoint> {
    let mut members = table.members(broadcast.session, broadcast.cursor);
    let target = loop {
        match members.next() {
            Some(Ok(target)) if target.member == broadcast.source => {}
            Some(Ok(target)) => break Some(target.endpoint),
            Some(Err(_)) => counters.copies_torn += 1,
            None => break None,
        }
    };
    broadcast.cursor = members.cursor();
    target
}
