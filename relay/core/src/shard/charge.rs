use lanrage_relay_table::{Budget, Source};

use crate::classes::Class;
use crate::drops::DropReason;

/// What a run of frames asks of the buckets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) now_ms: u64,
    pub(super) frames: u64,
    /// Of one frame.
    pub(super) bytes: u64,
    pub(super) is_broadcast: bool,
}

/// How many frames of the load pass, and what stops the others.
#[inline]
pub(super) fn admit(class: &Class, from: &Source<'_>, load: Load) -> (u64, DropReason) {
    let Load { now_ms, frames, bytes, is_broadcast } = load;
    let (Source { owner, session, .. }, Class { lease: one, session: all }) = (from, class);
    let packets = one.packets().admits(owner.bucket(Budget::Packets), now_ms, frames, 1);
    let lease = packets.min(one.bytes().admits(owner.bucket(Budget::Bytes), now_ms, frames, bytes));
    let packets = all.packets().admits(session.bucket(Budget::Packets), now_ms, frames, 1);
    let session =
        packets.min(all.bytes().admits(session.bucket(Budget::Bytes), now_ms, frames, bytes));
    // How many copies there will be is not known yet: they are charged when they are made.
    let (lease, session) = match is_broadcast {
        true => {
            let copies = has_copies(class, from, now_ms);
            (lease * u64::from(copies.lease), session * u64::from(copies.session))
        }
        false => (lease, session),
    };
    match session < lease {
        true => (session, DropReason::RateSession),
        false => (lease, DropReason::RateLease),
    }
}

/// Who may have copies made.
#[derive(Clone, Copy, Debug)]
pub(super) struct HasCopies {
    pub(super) lease: bool,
    pub(super) session: bool,
}

pub(super) fn has_copies(class: &Class, from: &Source<'_>, now_ms: u64) -> HasCopies {
    let Source { owner, session, .. } = from;
    let lease = class.lease.copies().admits(owner.bucket(Budget::Copies), now_ms, 1, 1);
    let session = class.session.copies().admits(session.bucket(Budget::Copies), now_ms, 1, 1);
    HasCopies { lease: lease == 1, session: session == 1 }
}

/// Charges frames received from a lease.
#[inline]
pub(super) fn frames(class: &Class, from: &Source<'_>, now_ms: u64, frames: u64, bytes: u64) {
    from.owner.count_received(frames, bytes);
    let Class { lease, session } = class;
    charge_lease(from, Budget::Packets, |full_at| lease.packets().charge(full_at, now_ms, frames));
    charge_lease(from, Budget::Bytes, |full_at| lease.bytes().charge(full_at, now_ms, bytes));
    charge_session(from, Budget::Packets, |full_at| {
        session.packets().charge(full_at, now_ms, frames)
    });
    charge_session(from, Budget::Bytes, |full_at| session.bytes().charge(full_at, now_ms, bytes));
}

/// Charges copies of a lease's broadcast.
pub(super) fn copies(class: &Class, from: &Source<'_>, now_ms: u64, copies: u64, bytes: u64) {
    let Class { lease, session } = class;
    charge_lease(from, Budget::Copies, |full_at| lease.copies().charge(full_at, now_ms, copies));
    charge_lease(from, Budget::Bytes, |full_at| lease.bytes().charge(full_at, now_ms, bytes));
    charge_session(from, Budget::Copies, |full_at| {
        session.copies().charge(full_at, now_ms, copies)
    });
    charge_session(from, Budget::Bytes, |full_at| session.bytes().charge(full_at, now_ms, bytes));
}

#[inline]
fn charge_lease(from: &Source<'_>, budget: Budget, charge: impl FnOnce(u64) -> u64) {
    from.owner.set_bucket(budget, charge(from.owner.bucket(budget)));
}

#[inline]
fn charge_session(from: &Source<'_>, budget: Budget, charge: impl FnOnce(u64) -> u64) {
    from.session.set_bucket(budget, charge(from.session.bucket(budget)));
}
