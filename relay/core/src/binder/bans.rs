use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use lanrage_proto::{SessionId, TunnelKey};

use super::leases::Claim;
use super::{Binder, End};

/// The first bytes of a member's X25519 key, which name it: to find another key with the same ones
/// takes 2^64 tries, and gains no more than its ban.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPrefix(pub [u8; 8]);

impl KeyPrefix {
    /// Of a member's key.
    pub fn of(TunnelKey([a, b, c, d, e, f, g, h, ..]): &TunnelKey) -> Self {
        Self([*a, *b, *c, *d, *e, *f, *g, *h])
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPrefix({self})")
    }
}

/// Whom the operator does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ban {
    /// One member of one party.
    Key(KeyPrefix),
    /// A whole party.
    Session(SessionId),
}

/// Who may not bind, whatever control says.
#[derive(Debug, Default)]
pub(super) struct Bans(HashSet<Ban>);

impl Bans {
    pub(super) fn hold(&self, claim: &Claim) -> bool {
        !self.0.is_empty()
            && (self.0.contains(&Ban::Key(claim.key))
                || self.0.contains(&Ban::Session(claim.session)))
    }
}

impl Binder {
    /// Refuses from now on whom these bans are about, and nobody else. Leases that there are end by
    /// [`Binder::end_banned`].
    pub fn set_bans(&mut self, bans: impl IntoIterator<Item = Ban>) {
        self.bans.0.clear();
        self.bans.0.extend(bans);
    }

    /// Ends the banned leases in a range of [`Binder::slot_count`]; gives how many.
    pub fn end_banned(&mut self, slots: Range<u32>) -> usize {
        let is_banned = |handle: lanrage_relay_table::Handle| {
            let record = self.records[handle.index() as usize].as_ref();
            record.is_some_and(|record| self.bans.hold(&record.claim))
        };
        let leases = self.table.scan(slots).map(|scanned| scanned.lease.handle);
        let banned: Vec<_> = leases.filter(|handle| is_banned(*handle)).collect();
        let ended = banned.len();
        banned.into_iter().for_each(|handle| self.end(handle, End::Banned));
        ended
    }

    /// How many bans hold.
    pub fn bans(&self) -> usize {
        self.bans.0.len()
    }
}
