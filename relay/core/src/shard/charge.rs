use lanrage_relay_table::{Budget, OwnerLine, SessionLine, Source};

use crate::drops::DropReason;
use crate::rate::{ClassLimits, Limits, Rate};

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
pub(super) fn admit(limits: &ClassLimits, from: &Source<'_>, load: Load) -> (u64, DropReason) {
    let lease = fit(&limits.lease, |budget| from.owner.bucket(budget), load);
    let session = fit(&limits.session, |budget| from.session.bucket(budget), load);
    match session < lease {
        true => (session, DropReason::RateSession),
        false => (lease, DropReason::RateLease),
    }
}

fn fit(limits: &Limits, bucket: impl Fn(Budget) -> u64, load: Load) -> u64 {
    let admits =
        |rate: Rate, budget, units| rate.admits(bucket(budget), load.now_ms, load.frames, units);
    let fit = admits(limits.packets, Budget::Packets, 1);
    let fit = fit.min(admits(limits.bytes, Budget::Bytes, load.bytes));
    // How many copies there will be is not known yet: they are charged when they are made.
    if load.is_broadcast { fit.min(admits(limits.copies, Budget::Copies, 1)) } else { fit }
}

/// How many frames of the load pass the session's limits alone.
pub(super) fn admit_session(limits: &Limits, session: &SessionLine, load: Load) -> u64 {
    fit(limits, |budget| session.bucket(budget), load)
}

/// Charges frames to the session alone.
pub(super) fn session_frames(
    limits: &Limits,
    session: &SessionLine,
    now_ms: u64,
    frames: u64,
    bytes: u64,
) {
    all(session, Budget::Packets, limits.packets, now_ms, frames);
    all(session, Budget::Bytes, limits.bytes, now_ms, bytes);
}

/// Charges copies to the session alone.
pub(super) fn session_copies(
    limits: &Limits,
    session: &SessionLine,
    now_ms: u64,
    copies: u64,
    bytes: u64,
) {
    all(session, Budget::Copies, limits.copies, now_ms, copies);
    all(session, Budget::Bytes, limits.bytes, now_ms, bytes);
}

/// Whether the session alone may have copies made.
pub(super) fn session_has_copies(limits: &Limits, session: &SessionLine, now_ms: u64) -> bool {
    limits.copies.admits(session.bucket(Budget::Copies), now_ms, 1, 1) == 1
}

/// Whether lease and session may have copies made.
pub(super) fn has_copies(limits: &ClassLimits, from: &Source<'_>, now_ms: u64) -> bool {
    let admits = |rate: Rate, full_at| rate.admits(full_at, now_ms, 1, 1) == 1;
    admits(limits.lease.copies, from.owner.bucket(Budget::Copies))
        && admits(limits.session.copies, from.session.bucket(Budget::Copies))
}

/// Charges frames received from a lease.
pub(super) fn frames(
    limits: &ClassLimits,
    from: &Source<'_>,
    now_ms: u64,
    frames: u64,
    bytes: u64,
) {
    let Source { owner, session, .. } = from;
    owner.count_received(frames, bytes);
    lease(owner, Budget::Packets, limits.lease.packets, now_ms, frames);
    lease(owner, Budget::Bytes, limits.lease.bytes, now_ms, bytes);
    session_frames(&limits.session, session, now_ms, frames, bytes);
}

/// Charges copies of a lease's broadcast.
pub(super) fn copies(
    limits: &ClassLimits,
    from: &Source<'_>,
    now_ms: u64,
    copies: u64,
    bytes: u64,
) {
    let Source { owner, session, .. } = from;
    lease(owner, Budget::Copies, limits.lease.copies, now_ms, copies);
    lease(owner, Budget::Bytes, limits.lease.bytes, now_ms, bytes);
    session_copies(&limits.session, session, now_ms, copies, bytes);
}

fn lease(owner: &OwnerLine, budget: Budget, rate: Rate, now_ms: u64, units: u64) {
    owner.set_bucket(budget, rate.charge(owner.bucket(budget), now_ms, units));
}

fn all(session: &SessionLine, budget: Budget, rate: Rate, now_ms: u64, units: u64) {
    session.set_bucket(budget, rate.charge(session.bucket(budget), now_ms, units));
}
