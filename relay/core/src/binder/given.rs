use std::net::SocketAddr;

use lanrage_proto::{Generation, Member, RateClass, RelayId, SessionId};
use lanrage_relay_table::{Endpoint, Full, Handle, LocalId, Tag};

use super::bans::KeyPrefix;
use super::leases::Claim;
use super::ranks::Rank;
use super::{Binder, Now};

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
        let endpoint = Endpoint::new(lease.address, lease.local);
        let (made, _) = self.insert(now, endpoint, &claim, now.ms)?;
        self.activate(now, made.handle);
        Ok((made.handle, made.tag))
    }
}
