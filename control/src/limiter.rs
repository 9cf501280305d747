//! Token buckets for what is cheap to ask and dear to answer.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::Mutex;

/// Buckets: two sources share one with a chance of 1 in this.
const BUCKETS: usize = 1 << 16;
const MILLI: u64 = 1_000;

/// A fixed table of buckets under a random hash: nobody can make it grow, nor aim at another's
/// bucket.
#[derive(Debug)]
pub(crate) struct Limiter {
    buckets: Mutex<Vec<Bucket>>,
    hasher: RandomState,
    per_minute: u32,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Thousandths of a request that may be made.
    left_milli: u64,
    updated_s: u64,
}

/// What a limit is for; each has its own buckets. The limit is a share of the configured rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Device registrations, per source prefix.
    Register,
    /// Invites opened and redeemed, per source prefix.
    InviteByPrefix,
    /// Invites opened and redeemed, per device.
    InviteByDevice,
    /// Relay enrolments, per source prefix.
    Enrol,
}

impl Purpose {
    const fn per_minute(self, configured: u32) -> u32 {
        match self {
            Self::Register | Self::InviteByPrefix => configured,
            Self::InviteByDevice => configured.div_ceil(4),
            Self::Enrol => configured.div_ceil(10),
        }
    }
}

impl Limiter {
    /// `per_minute` is the rate and the burst of a source; 0 lets everything pass.
    pub(crate) fn new(per_minute: u32) -> Self {
        let full = Bucket { left_milli: u64::MAX, updated_s: 0 };
        let buckets = Mutex::new(vec![full; BUCKETS]);
        Self { buckets, hasher: RandomState::new(), per_minute }
    }

    /// Takes one request from the bucket; `false` when there is none left.
    pub(crate) fn allows(&self, purpose: Purpose, key: impl Hash, uptime_s: u64) -> bool {
        if self.per_minute == 0 {
            return true;
        }
        let per_minute = u64::from(purpose.per_minute(self.per_minute));
        let index = self.hasher.hash_one((purpose, key)) as usize % BUCKETS;
        let mut buckets = self.buckets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bucket = &mut buckets[index];
        let gained =
            uptime_s.saturating_sub(bucket.updated_s).saturating_mul(per_minute * MILLI / 60);
        bucket.left_milli = bucket.left_milli.saturating_add(gained).min(per_minute * MILLI);
        bucket.updated_s = uptime_s;
        let allowed = bucket.left_milli >= MILLI;
        if allowed {
            bucket.left_milli -= MILLI;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_limited_alone_and_recovers() {
        let limiter = Limiter::new(60);
        let ask = |key: u32, at| limiter.allows(Purpose::Register, key, at);
        assert_eq!((0..100).filter(|_| ask(1, 10)).count(), 60);
        assert!(ask(2, 10), "another source");
        assert!(limiter.allows(Purpose::Enrol, 1, 10), "another purpose");
        assert!(!ask(1, 10));
        assert_eq!((0..100).filter(|_| ask(1, 13)).count(), 3, "one a second");
        assert!(Limiter::new(0).allows(Purpose::Enrol, 1, 0));
    }
}
