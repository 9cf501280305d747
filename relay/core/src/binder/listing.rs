use std::net::SocketAddr;
use std::ops::Range;

use lanrage_proto::{Generation, Member, RateClass, SessionId};
use lanrage_relay_table::{Lease, LocalId, Received, State};

use super::bans::KeyPrefix;
use super::{Binder, Now};
use crate::ids::{member_to_wire, session_to_wire};

/// A lease as its relay's operator may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Of the table.
    pub slot: u32,
    /// Whose party.
    pub session: SessionId,
    /// Who.
    pub member: Member,
    /// Of the member.
    pub generation: Generation,
    /// What a ban would name.
    pub key: KeyPrefix,
    /// Pending or active.
    pub state: State,
    /// Where the client is.
    pub address: SocketAddr,
    /// Which of the relay's addresses it talks to.
    pub local: LocalId,
    /// Of its ticket.
    pub rate_class: RateClass,
    /// When its ticket ends, in seconds since 1970.
    pub expires: u64,
    /// Since its last frame, or since it began.
    pub idle_ms: u64,
    /// Frames within its rate.
    pub received: Received,
    /// Frames of it that went nowhere: beyond its rate, or for whom this relay does not reach.
    pub dropped: u64,
    /// By other instances of its device, within the last minute, 3 at most.
    pub takeovers: usize,
}

impl Binder {
    /// Slots of the table, used or not.
    pub fn slot_count(&self) -> u32 {
        self.table.slots()
    }

    /// The leases in a range of slots; ask for a few thousand at a time.
    pub fn leases_in(&self, now: Now, slots: Range<u32>) -> impl Iterator<Item = LeaseView> {
        self.table.scan(slots).filter_map(move |scanned| self.view(now, &scanned.lease))
    }

    /// The leases of a session, by member.
    pub fn leases_of(&self, now: Now, session: SessionId) -> impl Iterator<Item = LeaseView> {
        let leases = Member::all().flat_map(move |member| self.member_records(session, member));
        leases.filter_map(move |(lease, _)| self.view(now, &lease))
    }

    fn view(&self, now: Now, lease: &Lease) -> Option<LeaseView> {
        let record = self.record(lease.handle)?;
        let owner = self.table.owner(lease.handle)?;
        Some(LeaseView {
            slot: lease.handle.index(),
            session: session_to_wire(lease.session),
            member: member_to_wire(lease.member),
            generation: record.generation,
            key: record.key,
            state: lease.state,
            address: lease.endpoint.remote(),
            local: lease.endpoint.local,
            rate_class: self.standing.ticket_class(lease.rate_class),
            expires: record.expires,
            idle_ms: now.ms.saturating_sub(owner.last_seen_ms()),
            received: owner.received(),
            dropped: owner.dropped(),
            takeovers: record.takeovers(now.ms),
        })
    }
}
