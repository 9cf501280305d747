use lanrage_proto::{Generation, RelayId};

use super::TAKEOVERS_MAX;
use super::bans::KeyPrefix;
use super::leases::Claim;
use super::ranks::Rank;

pub(super) const RECORD_WORDS: usize = 13;

/// What the binder knows of a lease and the shards need not. Session, member and rate class are in the
/// table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) generation: Generation,
    /// What a ban would name.
    pub(super) key: KeyPrefix,
    /// Where a drain sends the client; 0 for nowhere.
    pub(super) next: RelayId,
    /// Of the ticket, in seconds since 1970.
    pub(super) expires: u64,
    pub(super) instance: [u8; 16],
    pub(super) rank: Rank,
    /// While the lease is pending.
    pub(super) pending_until_ms: u64,
    /// When the address before a rebind is no longer accepted.
    pub(super) settle_at_ms: u64,
    /// Makes the control keys new whenever their counters begin again.
    pub(super) salt: u64,
    /// The last counter opened from the client.
    pub(super) counter_in: u64,
    /// The last counter used towards the client.
    pub(super) counter_out: u64,
    /// When other instances last took the member's lease, newest first.
    pub(super) takeovers_ms: [Option<u64>; TAKEOVERS_MAX],
}

/// Times have 48 bits: 8,900 years in milliseconds.
const TIME: u64 = (1 << 48) - 1;
const _: () = assert!(TAKEOVERS_MAX == 3);

impl Record {
    pub(super) const fn new(claim: &Claim, pending_until_ms: u64, salt: u64) -> Self {
        Self {
            generation: claim.generation,
            key: claim.key,
            next: claim.next,
            expires: claim.expires,
            instance: claim.instance,
            rank: claim.rank,
            pending_until_ms,
            settle_at_ms: 0,
            salt,
            counter_in: 0,
            counter_out: 0,
            takeovers_ms: [None; TAKEOVERS_MAX],
        }
    }

    /// ```text
    /// 0      generation u32 | times resumed u32       low bits first
    /// 1      expires, 48 bits | next relay u16
    /// 2..4   instance
    /// 4      stamp
    /// 5      salt
    /// 6, 7   counters in, out
    /// 8..11  pending until, settle at, second takeover, 48 bits each | 16 bits of the first takeover
    /// 11     third takeover
    /// 12     the key's first 8 bytes
    /// ```
    /// A takeover is its time and 1; 0 is none.
    pub(super) fn pack(&self) -> [u64; RECORD_WORDS] {
        let [first, second, third] =
            self.takeovers_ms.map(|at| at.map_or(0, |at_ms| at_ms.min(TIME - 1) + 1));
        let instance = u128::from_le_bytes(self.instance);
        let with_part =
            |time: u64, part: u32| time.min(TIME) | (first >> (16 * part) & 0xffff) << 48;
        [
            u64::from(self.generation.0) | u64::from(self.rank.resumed) << 32,
            self.expires.min(TIME) | u64::from(self.next.0) << 48,
            instance as u64,
            (instance >> 64) as u64,
            self.rank.stamp,
            self.salt,
            self.counter_in,
            self.counter_out,
            with_part(self.pending_until_ms, 0),
            with_part(self.settle_at_ms, 1),
            with_part(second, 2),
            third,
            u64::from_be_bytes(self.key.0),
        ]
    }

    pub(super) fn unpack(words: [u64; RECORD_WORDS]) -> Self {
        let first = (8..11).rev().fold(0, |time, at: usize| time << 16 | words[at] >> 48);
        let takeovers = [first, words[10] & TIME, words[11] & TIME];
        let instance = u128::from(words[2]) | u128::from(words[3]) << 64;
        Self {
            generation: Generation(words[0] as u32),
            key: KeyPrefix(words[12].to_be_bytes()),
            next: RelayId((words[1] >> 48) as u16),
            expires: words[1] & TIME,
            instance: instance.to_le_bytes(),
            rank: Rank { stamp: words[4], resumed: (words[0] >> 32) as u32 },
            pending_until_ms: words[8] & TIME,
            settle_at_ms: words[9] & TIME,
            salt: words[5],
            counter_in: words[6],
            counter_out: words[7],
            takeovers_ms: takeovers.map(|time| time.checked_sub(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn record()(
            numbers in any::<(u32, u32, [u8; 16], [u8; 8], u16)>(),
            words in any::<[u64; 5]>(),
            times in any::<[u64; 2]>(),
            takeovers in any::<[Option<u64>; 3]>(),
        ) -> Record {
            let (generation, resumed, instance, key, next) = numbers;
            let [expires, stamp, salt, counter_in, counter_out] = words;
            let [pending_until_ms, settle_at_ms] = times.map(|time| time & TIME);
            Record {
                generation: Generation(generation),
                key: KeyPrefix(key),
                next: RelayId(next),
                expires: expires & TIME,
                instance,
                rank: Rank { stamp, resumed },
                pending_until_ms,
                settle_at_ms,
                salt,
                counter_in,
                counter_out,
                takeovers_ms: takeovers.map(|at| at.map(|at| at & (TIME >> 1))),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(record in record()) {
            prop_assert_eq!(Record::unpack(record.pack()), record);
        }

        #[test]
        fn any_words_are_a_record(words in any::<[u64; RECORD_WORDS]>()) {
            let record = Record::unpack(words);
            prop_assert_eq!(Record::unpack(record.pack()), record);
        }
    }
}
