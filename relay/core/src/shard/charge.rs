use lanrage_relay_table::{Budget, SessionLine, Source};

use crate::classes::Class;
use crate::drops::DropReason;
use crate::egress;
use crate::rate::Rate;

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
    let (owner, limits) = (&from.owner, &class.lease);
    let packets = limits.packets().admits(owner.bucket(Budget::Packets), now_ms, frames, 1);
    let mut lease =
        packets.min(limits.bytes().admits(owner.bucket(Budget::Bytes), now_ms, frames, bytes));
    // How many copies there will be is not known yet: they are charged when they are made.
    if is_broadcast {
        lease = lease.min(limits.copies().admits(owner.bucket(Budget::Copies), now_ms, frames, 1));
    }
    let session = admit_session(class, &from.session, load);
    match session < lease {
        true => (session, DropReason::RateSession),
        false => (lease, DropReason::RateLease),
    }
}

/// How many frames of the load the session's limits let pass.
#[inline]
pub(super) fn admit_session(class: &Class, session: &SessionLine<'_>, load: Load) -> u64 {
    let Load { now_ms, frames, bytes, is_broadcast } = load;
    let limits = &class.session;
    let packets = limits.packets().admits(session.bucket(Budget::Packets), now_ms, frames, 1);
    let fit =
        packets.min(limits.bytes().admits(session.bucket(Budget::Bytes), now_ms, frames, bytes));
    match is_broadcast {
        true => fit.min(limits.copies().admits(session.bucket(Budget::Copies), now_ms, frames, 1)),
        false => fit,
    }
}

/// Whether lease and session may have copies made.
pub(super) fn has_copies(class: &Class, from: &Source<'_>, now_ms: u64) -> bool {
    class.lease.copies().admits(from.owner.bucket(Budget::Copies), now_ms, 1, 1) == 1
        && session_has_copies(class, &from.session, now_ms)
}

/// Whether the session may have copies made.
pub(super) fn session_has_copies(class: &Class, session: &SessionLine<'_>, now_ms: u64) -> bool {
    class.session.copies().admits(session.bucket(Budget::Copies), now_ms, 1, 1) == 1
}

/// Charges frames received from a lease.
#[inline]
pub(super) fn frames(class: &Class, from: &Source<'_>, now_ms: u64, frames: u64, bytes: u64) {
    from.owner.count_received(frames, bytes);
    let lease = &class.lease;
    charge_lease(from, Budget::Packets, |full_at| lease.packets().charge(full_at, now_ms, frames));
    charge_lease(from, Budget::Bytes, |full_at| lease.bytes().charge(full_at, now_ms, bytes));
    session_frames(class, &from.session, now_ms, frames, bytes);
}

/// Charges frames to the session alone.
#[inline]
pub(super) fn session_frames(
    class: &Class,
    line: &SessionLine<'_>,
    now_ms: u64,
    frames: u64,
    bytes: u64,
) {
    let limits = &class.session;
    charge_session(line, Budget::Packets, |at| limits.packets().charge(at, now_ms, frames));
    charge_session(line, Budget::Bytes, |at| limits.bytes().charge(at, now_ms, bytes));
}

/// Charges copies of a lease's broadcast.
pub(super) fn copies(class: &Class, from: &Source<'_>, now_ms: u64, copies: u64, bytes: u64) {
    let lease = &class.lease;
    charge_lease(from, Budget::Copies, |full_at| lease.copies().charge(full_at, now_ms, copies));
    charge_lease(from, Budget::Bytes, |full_at| lease.bytes().charge(full_at, now_ms, bytes));
    session_copies(class, &from.session, now_ms, copies, bytes);
}

/// Charges copies to the session alone.
pub(super) fn session_copies(
    class: &Class,
    line: &SessionLine<'_>,
    now_ms: u64,
    copies: u64,
    bytes: u64,
) {
    let limits = &class.session;
    charge_session(line, Budget::Copies, |at| limits.copies().charge(at, now_ms, copies));
    charge_session(line, Budget::Bytes, |at| limits.bytes().charge(at, now_ms, bytes));
}

/// How many frames of a load a lease's share of a short egress lets through.
#[cold]
pub(super) fn admit_share(share: Rate, from: &Source<'_>, load: Load) -> u64 {
    share.admits(from.owner.egress(), load.now_ms, load.frames, egress::wire(1, load.bytes))
}

/// Charges what is sent for a lease while the egress is short.
#[cold]
pub(super) fn share(share: Rate, from: &Source<'_>, now_ms: u64, datagrams: u64, bytes: u64) {
    let taken = egress::wire(datagrams, bytes);
    from.owner.set_egress(share.charge(from.owner.egress(), now_ms, taken));
}

#[inline]
fn charge_lease(from: &Source<'_>, budget: Budget, charge: impl FnOnce(u64) -> u64) {
    from.owner.set_bucket(budget, charge(from.owner.bucket(budget)));
}

#[inline]
fn charge_session(line: &SessionLine<'_>, budget: Budget, charge: impl FnOnce(u64) -> u64) {
    line.set_bucket(budget, charge(line.bucket(budget)));
}
