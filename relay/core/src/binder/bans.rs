use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use lanrage_proto::{SessionId, TunnelKey};
use lanrage_relay_table::Lease;

use super::{Binder, End};
use crate::ids::session_to_wire;

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
    pub(super) fn hold(&self, session: SessionId, key: KeyPrefix) -> bool {
        !self.0.is_empty()
            && (self.0.contains(&Ban::Key(key)) || self.0.contains(&Ban::Session(session)))
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
        let is_banned = |lease: &Lease| {
            let record = self.memory.record(lease.handle.index());
            self.bans.hold(session_to_wire(lease.session), record.key)
        };
        let leases = self.table.scan(slots).map(|scanned| scanned.lease);
        let banned: Vec<_> = leases.filter(is_banned).map(|lease| lease.handle).collect();
        let ended = banned.len();
        banned.into_iter().for_each(|handle| self.end(handle, End::Banned));
        ended
    }

    /// How many bans hold.
    pub fn bans(&self) -> usize {
        self.bans.0.len()
    }
}
