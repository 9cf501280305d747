use std::net::SocketAddr;

use lanrage_proto::{Generation, Member, RateClass, RelayId, SessionId};
use lanrage_relay_table::{Endpoint, Full, Handle, LocalId, NewLease, Tag};
use rand_core::RngCore as _;

use super::bans::KeyPrefix;
use super::leases::Claim;
use super::ranks::Rank;
use super::records::Record;
use super::{Binder, Now};
use crate::ids::{member, session};

/// A lease as it will be, without the exchange that makes one.
#[derive(Clone, Copy, Debug)]
pub struct GivenLease {
    /// Whose it is.
    pub session: SessionId,
    /// Whose it is.
    pub member: Member,
    /// Of the ticket.
    pub generation: Generation,
    /// Of the ticket.
    pub rate_class: RateClass,
    /// Of the ticket, in seconds since 1970.
    pub expires: u64,
    /// Of the member.
    pub key: KeyPrefix,
    /// The next relay of the ticket; 0 for none.
    pub next: RelayId,
    /// Of the client.
    pub instance: [u8; 16],
    /// Where the client is.
    pub address: SocketAddr,
    /// Which of the relay's addresses it talks to.
    pub local: LocalId,
}

impl Binder {
    /// Makes an active lease without a bind: for a load of a million of them, which then are handed
    /// over to a relay. A lease that the member has is replaced.
    ///
    /// # Errors
    /// The table has no room.
    pub fn give_lease(&mut self, now: Now, lease: &GivenLease) -> Result<(Handle, Tag), Full> {
        let claim = Claim {
            session: lease.session,
            member: lease.member,
            generation: lease.generation,
            rate_class: lease.rate_class,
            expires: lease.expires,
            instance: lease.instance,
            key: lease.key,
            next: lease.next,
            rank: Rank::default(),
        };
        let tag = Tag(self.rng.next_u32());
        let new = NewLease {
            session: session(claim.session),
            member: member(claim.member),
            endpoint: Endpoint::new(lease.address, lease.local),
            tag,
            rate_class: self.class_of(claim.session, claim.member, claim.rate_class),
        };
        let random = self.rng.next_u64();
        let inserted = self.table.insert_pending(&new, random, now.ms)?;
        if inserted.displaced.is_some() {
            self.counters.count_end(super::End::Replaced);
        }
        let record = Record::new(&claim, now.ms, self.rng.next_u64());
        self.memory.set_record(inserted.handle.index(), &record);
        self.counters.begun += 1;
        self.activate(now, inserted.handle);
        Ok((inserted.handle, tag))
    }
}
