use lanrage_relay_table::{Endpoint, Miss, Reader};

use super::backlog::{Broadcast, Payer};
use super::{Counters, Shard, Verdict, charge};
use crate::classes::Classes;
use crate::drops::DropReason;

impl Shard {
    /// Finds the first targets of a broadcast and puts it into the backlog when there are more
    /// members than this pass may still serve. While others wait it waits behind them, so a
    /// broadcast that finds the backlog full has gone to nobody.
    pub(super) fn broadcast(&mut self, mut broadcast: Broadcast, frame: &[u8]) -> Verdict {
        self.targets.clear();
        broadcast.has_begun = self.backlog.is_empty() && self.copies_left > 0;
        if !self.backlog.is_empty() && !self.backlog.has_room(broadcast.session) {
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
        self.count_copies(broadcast.payer, broadcast.rate_class, copies, frame.len());
        Verdict::Copy
    }

    /// The target of the backlog's next copy, of the broadcast at its front.
    pub(super) fn next_copy(&mut self) -> Option<Endpoint> {
        while self.copies_left > 0 {
            let (broadcast, frame) = self.backlog.front()?;
            let (payer, rate_class, len) = (broadcast.payer, broadcast.rate_class, frame.len());
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
                    self.count_copies(payer, rate_class, 1, len);
                    return Some(to);
                }
                None => self.backlog.pop(),
            }
        }
        None
    }

    /// Counts copies, and charges them while who pays is still there.
    fn count_copies(&mut self, payer: Payer, rate_class: u8, copies: usize, len: usize) {
        let copies = copies as u64;
        self.counters.copies += copies;
        self.counters.planned += copies;
        let bytes = copies * len as u64;
        let class = self.classes.of(rate_class);
        match payer {
            Payer::Lease(handle) => {
                if let Ok(from) = self.table.source(handle) {
                    charge::copies(class, &from, self.now_ms, copies, bytes);
                    if let Some(share) = self.classes.share() {
                        charge::share(share, &from, self.now_ms, copies, bytes);
                    }
                }
            }
            Payer::Session(chain) => {
                if let Some(line) = self.table.session_line(chain) {
                    charge::session_copies(class, &line, self.now_ms, copies, bytes);
                }
            }
        }
    }
}

/// Whether the sender of a broadcast that waited has its lease still, and copies left: those of its
/// broadcasts before this one were made, and charged, after this one was admitted.
fn may_begin(table: &Reader, classes: &Classes, broadcast: &Broadcast, now_ms: u64) -> bool {
    let class = classes.of(broadcast.rate_class);
    match broadcast.payer {
        Payer::Lease(handle) => match table.source(handle) {
            Ok(from) => charge::has_copies(class, &from, now_ms),
            Err(Miss::Torn) => true,
            Err(Miss::Absent) => false,
        },
        Payer::Session(chain) => table
            .session_line(chain)
            .is_some_and(|line| charge::session_has_copies(class, &line, now_ms)),
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
