use std::hash::Hasher as _;

use lanrage_proto::{Member, SessionId};
use siphasher::sip::SipHasher13;

/// The newest stamp of each instance of a member, also after its lease has ended.
///
/// A direct-mapped table: of two instances that share a slot the older is forgotten. Then an old BIND
/// of its own, while it has no lease, can make a pending one, which evicts nobody.
#[derive(Debug)]
pub(super) struct Stamps {
    key: [u8; 16],
    slots: Box<[Slot]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    instance: u64,
    stamp: u64,
}

impl Stamps {
    pub(super) fn new(key: [u8; 16], slots: usize) -> Self {
        Self { key, slots: vec![Slot::default(); slots.next_power_of_two()].into() }
    }

    /// Whether the stamp is newer than the last one taken; it is taken if so.
    pub(super) fn take(
        &mut self,
        session: SessionId,
        member: Member,
        instance: &[u8; 16],
        stamp: u64,
    ) -> bool {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u64(session.0);
        hasher.write_u8(member.number());
        hasher.write(instance);
        let hash = hasher.finish();
        let at = hash as usize % self.slots.len();
        let slot = &mut self.slots[at];
        if slot.instance == hash && stamp <= slot.stamp {
            return false;
        }
        *slot = Slot { instance: hash, stamp };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_for_each_instance_by_itself() {
        let mut stamps = Stamps::new([1; 16], 1000);
        let member = Member::new(1).unwrap();
        let mut take = |instance, stamp| stamps.take(SessionId(1), member, &[instance; 16], stamp);
        assert!(take(1, 10));
        assert!(!take(1, 10));
        assert!(!take(1, 9));
        assert!(take(2, 5));
        assert!(take(1, 11));
    }
}
