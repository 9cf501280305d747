use lanrage_proto::api::Revocation;
use lanrage_proto::frame::bind::{Lease, Refusal};
use lanrage_proto::mac::mac32;
use lanrage_proto::{Generation, Member, RateClass, RelayId, SessionId};
use lanrage_relay_table::{self as table, Endpoint, Full, Handle, NewLease, State, Tag};
use rand_core::RngCore as _;
use zeroize::Zeroizing;

use super::bans::KeyPrefix;
use super::cookies::Place;
use super::ranks::Rank;
use super::records::Record;
use super::{
    Binder, CLOCK_LEEWAY_S, Control, End, IDLE_TIMEOUT_MS, LOST_CONTROL_GRACE_S, Now,
    PENDING_TIMEOUT_MS, RECOVERY_MS, TAKEOVER_WINDOW_MS, TAKEOVERS_MAX,
};
use crate::ids::{handle_to_wire, member, session, tag_to_wire};

/// What a ticket, or a resumption ticket, entitles to.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) session: SessionId,
    pub(super) member: Member,
    pub(super) generation: Generation,
    pub(super) key: KeyPrefix,
    /// Where its ticket says to go from here; 0 where it names no other relay.
    pub(super) next: RelayId,
    pub(super) rate_class: RateClass,
    /// Seconds since 1970.
    pub(super) expires: u64,
    pub(super) instance: [u8; 16],
    pub(super) rank: Rank,
}

/// How a claim was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granted {
    New,
    /// The lease that this instance has at this address goes on.
    Renewed,
}

/// Who seals with a control key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToRelay = 0,
    ToClient = 1,
}

impl Binder {
    /// Checks a claim's time and generation.
    fn check_standing(&self, now: Now, claim: &Claim) -> Result<(), Refusal> {
        let grace = match self.control {
            Control::Lost => LOST_CONTROL_GRACE_S,
            Control::Present { .. } => CLOCK_LEEWAY_S,
        };
        if now.unix_s > claim.expires.saturating_add(grace) {
            return Err(Refusal::Expired);
        }
        // A ticket of a later generation is control's word that the earlier one is out.
        let newer = self
            .member_records(claim.session, claim.member)
            .any(|(_, record)| record.generation > claim.generation);
        let Claim { session, member, generation, .. } = *claim;
        if newer || self.revocations.is_revoked(session, member, generation) {
            return Err(Refusal::Revoked);
        }
        Ok(())
    }

    /// Takes a claim's rank, which must be above that of every claim of its instance before: what was
    /// held back on its way must not undo what came later.
    fn take_rank(&mut self, claim: &Claim) -> Result<(), Refusal> {
        let is_overtaken = self
            .member_records(claim.session, claim.member)
            .any(|(_, record)| record.instance == claim.instance && record.rank >= claim.rank);
        if is_overtaken || !self.ranks.take(claim) {
            return Err(Refusal::Replayed);
        }
        Ok(())
    }

    /// Whether a lease's ticket no longer keeps it.
    pub(super) fn is_over(&self, now: Now, expires: u64) -> bool {
        let grace = match self.control {
            Control::Present { since_ms } if now.ms >= since_ms + RECOVERY_MS => CLOCK_LEEWAY_S,
            Control::Present { .. } | Control::Lost => LOST_CONTROL_GRACE_S,
        };
        now.unix_s > expires.saturating_add(grace)
    }

    /// Meets a claim that is in time, not revoked and new: renews the lease that this instance has at
    /// this address, or makes a pending one beside the lease that the member has.
    pub(super) fn grant(
        &mut self,
        now: Now,
        place: Place,
        claim: &Claim,
    ) -> Result<(Box<Lease>, Granted), Refusal> {
        if self.bans.hold(claim.session, claim.key) {
            return Err(Refusal::Banned);
        }
        self.check_standing(now, claim)?;
        if self.drain.is_some() {
            return Err(Refusal::Draining);
        }
        self.take_rank(claim)?;
        let endpoint = Endpoint::new(place.remote, place.local);
        let pending_until_ms = now.ms + PENDING_TIMEOUT_MS;
        let same = self.member_records(claim.session, claim.member).find(|(lease, record)| {
            lease.endpoint == endpoint
                && record.instance == claim.instance
                && record.generation == claim.generation
                && self.standing.is_of(lease.rate_class, claim.rate_class)
        });
        if let Some((lease, record)) = same {
            let renewed = Record {
                settle_at_ms: record.settle_at_ms,
                takeovers_ms: record.takeovers_ms,
                ..Record::new(claim, pending_until_ms, self.rng.next_u64())
            };
            let described = self.describe(place, &lease, claim, &renewed);
            self.memory.set_record(lease.handle.index(), &renewed);
            self.timers.pending(pending_until_ms, lease.handle);
            return Ok((described, Granted::Renewed));
        }

        let leases = self.table.lookup(session(claim.session), member(claim.member));
        let rival = leases.active.and_then(|handle| self.record(handle));
        if rival.is_some_and(|rival| rival.instance != claim.instance && rival.is_contested(now.ms))
        {
            return Err(Refusal::Duplicate);
        }
        let (lease, record) =
            self.insert(now, endpoint, claim, pending_until_ms).map_err(|_| Refusal::Full)?;
        let described = self.describe(place, &lease, claim, &record);
        self.timers.pending(pending_until_ms, lease.handle);
        Ok((described, Granted::New))
    }

    /// Makes a pending lease, and its record.
    pub(super) fn insert(
        &mut self,
        now: Now,
        endpoint: Endpoint,
        claim: &Claim,
        pending_until_ms: u64,
    ) -> Result<(table::Lease, Record), Full> {
        let new = NewLease {
            session: session(claim.session),
            member: member(claim.member),
            endpoint,
            tag: Tag(self.rng.next_u32()),
            rate_class: self.class_of(claim.session, claim.member, claim.rate_class),
        };
        let random = self.rng.next_u64();
        let inserted = self.table.insert_pending(&new, random, now.ms)?;
        if inserted.displaced.is_some() {
            self.counters.count_end(End::Replaced);
        }
        let record = Record::new(claim, pending_until_ms, self.rng.next_u64());
        self.memory.set_record(inserted.handle.index(), &record);
        self.counters.begun += 1;
        let lease = self.table.lease(inserted.handle).expect("the lease was inserted just now");
        Ok((lease, record))
    }

    /// Makes a pending lease its member's own.
    pub(super) fn activate(&mut self, now: Now, handle: Handle) {
        let was_pending =
            self.table.lease(handle).is_some_and(|lease| lease.state == State::Pending);
        let Ok(replaced) = self.table.activate(handle) else {
            return;
        };
        self.counters.activated += u64::from(was_pending);
        let Some(replaced) = replaced else {
            return;
        };
        self.counters.count_end(End::Replaced);
        let former = self.memory.record(replaced.index());
        self.change_record(handle, |record| {
            record.takeovers_ms = former.takeovers_ms;
            if record.instance != former.instance {
                record.takeovers_ms.rotate_right(1);
                record.takeovers_ms[0] = Some(now.ms);
            }
        });
    }

    pub(super) fn end(&mut self, handle: Handle, cause: End) {
        if self.table.release(handle).is_ok() {
            self.counters.count_end(cause);
        }
    }

    /// Ends what a revocation is about.
    pub(super) fn end_revoked(&mut self, revocation: &Revocation) {
        let ended: Vec<_> = self
            .member_records(revocation.session, revocation.member)
            .filter(|(_, record)| record.generation < revocation.generation)
            .map(|(lease, _)| lease.handle)
            .collect();
        ended.into_iter().for_each(|handle| self.end(handle, End::Revoked));
    }

    /// The record of a handle's lease.
    pub(super) fn record(&self, handle: Handle) -> Option<Record> {
        self.table.lease(handle)?;
        Some(self.memory.record(handle.index()))
    }

    /// Changes the record of a live lease.
    pub(super) fn change_record(&self, handle: Handle, change: impl FnOnce(&mut Record)) {
        let mut record = self.memory.record(handle.index());
        change(&mut record);
        self.memory.set_record(handle.index(), &record);
    }

    /// `handle ‖ tag ‖ generation ‖ session ‖ member ‖ salt ‖ direction` under the relay's secret:
    /// a counter is a nonce, so wherever counters begin again the salt is another.
    pub(super) fn control_key(
        &self,
        lease: &table::Lease,
        Record { generation, salt, .. }: &Record,
        direction: Direction,
    ) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(mac32(
            &self.identity.secret,
            &[
                b"lanrage control key",
                &lease.handle.to_bits().to_be_bytes(),
                &lease.tag.0.to_be_bytes(),
                &generation.0.to_be_bytes(),
                &lease.session.0.to_be_bytes(),
                &[lease.member.number()],
                &salt.to_be_bytes(),
                &[direction as u8],
            ],
        ))
    }

    /// The leases of a member, active and pending, with their records.
    pub(super) fn member_records(
        &self,
        of: SessionId,
        who: Member,
    ) -> impl Iterator<Item = (table::Lease, Record)> {
        let leases = self.table.lookup(session(of), member(who));
        [leases.active, leases.pending].into_iter().flatten().filter_map(|handle| {
            Some((self.table.lease(handle)?, self.memory.record(handle.index())))
        })
    }

    /// The lease as its client gets to know it, with a fresh resumption ticket.
    fn describe(
        &mut self,
        place: Place,
        lease: &table::Lease,
        claim: &Claim,
        record: &Record,
    ) -> Box<Lease> {
        let (resumption_key, resumption_ticket) = self.resumption(claim);
        Box::new(Lease {
            handle: handle_to_wire(lease.handle),
            tag: tag_to_wire(lease.tag),
            key_to_relay: self.control_key(lease, record, Direction::ToRelay),
            key_to_client: self.control_key(lease, record, Direction::ToClient),
            reflexive: place.remote,
            idle_timeout_s: (IDLE_TIMEOUT_MS / 1000) as u16,
            pending_timeout_s: (PENDING_TIMEOUT_MS / 1000) as u16,
            resumption_key,
            resumption_ticket,
        })
    }
}

impl Record {
    /// Whether one more takeover would be one too many.
    fn is_contested(&self, now_ms: u64) -> bool {
        self.takeovers(now_ms) == TAKEOVERS_MAX
    }

    /// Takeovers within the window; counted up to the maximum.
    pub(super) fn takeovers(&self, now_ms: u64) -> usize {
        let is_recent = |at: &&u64| now_ms.saturating_sub(**at) < TAKEOVER_WINDOW_MS;
        self.takeovers_ms.iter().flatten().filter(is_recent).count()
    }
}
