use std::hash::Hasher as _;
use std::sync::atomic::{AtomicU64, Ordering};

use siphasher::sip::SipHasher13;

use super::leases::Claim;
use super::memory::RANK_WORDS;

/// The order of an instance's claims. BIND's is its stamp; that of RESUME follows the claim which
/// the resumption ticket was given for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Of the BIND.
    pub(super) stamp: u64,
    /// How often the lease was resumed since.
    pub(super) resumed: u32,
}

impl Rank {
    pub(super) const fn of_bind(stamp: u64) -> Self {
        Self { stamp, resumed: 0 }
    }

    /// The rank of who resumes what had this one.
    pub(super) const fn resumed(self) -> Self {
        Self { stamp: self.stamp, resumed: self.resumed.saturating_add(1) }
    }
}

/// The last rank of each instance of a member, also after its lease has ended.
///
/// A direct-mapped table: of two instances that share a slot the older is forgotten. Then an old claim
/// of its own, while it has no lease, can make a pending one, which evicts nobody.
#[derive(Debug)]
pub(super) struct Ranks {
    pub(super) key: [u8; 16],
    /// A power of two of them.
    slots: &'static [[AtomicU64; RANK_WORDS]],
}

/// Word 0 is the stamp, word 1 `resumed | instance`, low bits first.
/// `instance` is the half of a hash that does not choose the slot. An instance that is taken for another
/// one is refused as replayed until its stamp is above the other's.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    stamp: u64,
    resumed: u32,
    instance: u32,
}

const _: () = assert!(size_of::<Slot>() == RANK_WORDS * 8);

impl Ranks {
    pub(super) const fn new(key: [u8; 16], slots: &'static [[AtomicU64; RANK_WORDS]]) -> Self {
        Self { key, slots }
    }

    /// Whether the claim's rank is above the last one taken; it is taken if so.
    pub(super) fn take(&mut self, claim: &Claim) -> bool {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u64(claim.session.0);
        hasher.write_u8(claim.member.number());
        hasher.write(&claim.instance);
        let hash = hasher.finish();
        let instance = (hash >> 32) as u32;
        let at = hash as u32 as usize % self.slots.len();
        let slot = read(&self.slots[at]);
        let last = Rank { stamp: slot.stamp, resumed: slot.resumed };
        let Rank { stamp, resumed } = claim.rank;
        if slot.instance == instance && claim.rank <= last {
            return false;
        }
        write(&self.slots[at], Slot { stamp, resumed, instance });
        true
    }
}

fn read([stamp, rest]: &[AtomicU64; RANK_WORDS]) -> Slot {
    let rest = rest.load(Ordering::Relaxed);
    Slot {
        stamp: stamp.load(Ordering::Relaxed),
        resumed: rest as u32,
        instance: (rest >> 32) as u32,
    }
}

fn write([stamp, rest]: &[AtomicU64; RANK_WORDS], slot: Slot) {
    stamp.store(slot.stamp, Ordering::Relaxed);
    let packed = u64::from(slot.resumed) | u64::from(slot.instance) << 32;
    rest.store(packed, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use lanrage_proto::{Generation, Member, RateClass, RelayId, SessionId};

    use super::*;
    use crate::binder::KeyPrefix;

    #[test]
    fn ranks_grow_for_each_instance_by_itself() {
        let slots = std::array::from_fn::<_, 1024, _>(|_| [AtomicU64::new(0), AtomicU64::new(0)]);
        let mut ranks = Ranks::new([1; 16], Box::leak(Box::new(slots)));
        let mut take = |instance, stamp, resumed| {
            ranks.take(&Claim {
                session: SessionId(1),
                member: Member::new(1).unwrap(),
                generation: Generation(1),
                key: KeyPrefix([0; 8]),
                next: RelayId(0),
                rate_class: RateClass(0),
                expires: 0,
                instance: [instance; 16],
                rank: Rank { stamp, resumed },
            })
        };
        assert!(take(1, 10, 0));
        assert!(!take(1, 10, 0));
        assert!(!take(1, 9, 0));
        assert!(take(2, 5, 0));
        assert!(take(1, 10, 1));
        assert!(!take(1, 10, 1));
        assert!(!take(1, 9, 7));
        assert!(take(1, 11, 0));
        assert!(!take(1, 10, 2));
    }
}
