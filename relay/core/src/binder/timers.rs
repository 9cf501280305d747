use std::collections::VecDeque;

use lanrage_relay_table::{Handle, State};

use super::{Binder, End, IDLE_TIMEOUT_MS, Now};

/// A step of the sweep over the table.
const SWEEP_STEP_MS: u64 = 100;
/// Steps of a whole sweep: a lease ends at most 2 s late.
const SWEEP_STEPS: u32 = 20;

/// Each kind has one duration, so the queues are in order of time.
#[derive(Debug)]
pub(super) struct Timers {
    /// When to end a lease that nothing has used.
    pub(super) pending: VecDeque<(u64, Handle)>,
    /// When to stop accepting the address before a rebind.
    pub(super) settling: VecDeque<(u64, Handle)>,
    /// When to look for idle and expired leases in the next part of the table.
    pub(super) sweep_at_ms: u64,
    pub(super) sweep_from: u32,
    ended: Vec<(Handle, End)>,
}

impl Timers {
    pub(super) const fn new(now_ms: u64) -> Self {
        Self {
            pending: VecDeque::new(),
            settling: VecDeque::new(),
            sweep_at_ms: now_ms + SWEEP_STEP_MS,
            sweep_from: 0,
            ended: Vec::new(),
        }
    }

    pub(super) fn pending(&mut self, at_ms: u64, handle: Handle) {
        self.pending.push_back((at_ms, handle));
    }

    pub(super) fn settling(&mut self, at_ms: u64, handle: Handle) {
        self.settling.push_back((at_ms, handle));
    }

    pub(super) fn next_ms(&self) -> u64 {
        let fronts = [self.pending.front(), self.settling.front()];
        let queued = fronts.into_iter().flatten().map(|(at_ms, _)| *at_ms).min();
        queued.map_or(self.sweep_at_ms, |at_ms| at_ms.min(self.sweep_at_ms))
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len() + self.settling.len()
    }
}

/// The first entry, if its time has come.
fn due(queue: &mut VecDeque<(u64, Handle)>, now_ms: u64) -> Option<Handle> {
    queue.pop_front_if(|(at_ms, _)| *at_ms <= now_ms).map(|(_, handle)| handle)
}

impl Binder {
    pub(super) fn run_timers(&mut self, now: Now) {
        if self.cookies.rotate_at_ms() <= now.ms {
            self.cookies.rotate(&mut self.rng, now.ms);
        }
        self.answers.forget_old(now.ms);
        while let Some(handle) = due(&mut self.timers.pending, now.ms) {
            self.end_if_unused(now, handle);
        }
        while let Some(handle) = due(&mut self.timers.settling, now.ms) {
            self.settle(now, handle);
        }
        self.drain_on(now);
        if self.timers.sweep_at_ms <= now.ms {
            self.sweep(now);
            self.timers.sweep_at_ms = now.ms + SWEEP_STEP_MS;
        }
    }

    /// A renewed lease has a later timer of its own.
    fn end_if_unused(&mut self, now: Now, handle: Handle) {
        let is_pending =
            self.table.lease(handle).is_some_and(|lease| lease.state == State::Pending);
        let is_due = self.record(handle).is_some_and(|record| record.pending_until_ms <= now.ms);
        if is_pending && is_due {
            self.end(handle, End::Unused);
        }
    }

    /// A lease that has moved again has a later timer of its own.
    fn settle(&mut self, now: Now, handle: Handle) {
        if self.record(handle).is_some_and(|record| record.settle_at_ms <= now.ms) {
            self.table.settle_address(handle).expect("a lease with a record is in the table");
        }
    }

    /// Ends what is idle or expired in one part of the table.
    fn sweep(&mut self, now: Now) {
        let slots = self.table.slots();
        let from = self.timers.sweep_from;
        let to = from.saturating_add(slots.div_ceil(SWEEP_STEPS));
        let mut ended = std::mem::take(&mut self.timers.ended);
        for scanned in self.table.scan(from..to) {
            let lease = scanned.lease;
            let idle_ms = now.ms.saturating_sub(scanned.last_seen_ms);
            let expires = self.memory.record(lease.handle.index()).expires;
            if lease.state == State::Active && idle_ms >= IDLE_TIMEOUT_MS {
                ended.push((lease.handle, End::Idle));
            } else if self.is_over(now, expires) {
                ended.push((lease.handle, End::Expired));
            }
        }
        ended.drain(..).for_each(|(handle, cause)| self.end(handle, cause));
        self.timers.ended = ended;
        self.timers.sweep_from = if to < slots { to } else { 0 };
        if self.timers.sweep_from == 0 {
            self.revocations.forget_old(now.unix_s);
        }
    }
}
