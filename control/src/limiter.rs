//! Rates: how much one network, and one device, may ask of the service.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, PoisonError};

use lanrage_proto::DeviceKey;

use crate::network::Network;

/// Buckets of a purpose, for networks and for devices each: two sources share one with a chance of
/// 1 in this.
const BUCKETS: usize = 1 << 16;
const MINUTE_US: u64 = 60_000_000;

/// Fixed tables of buckets under a random hash: nobody can make them grow, nor aim at another's
/// bucket.
#[derive(Debug)]
pub(crate) struct Limiter {
    /// When each bucket will be full again, in µs of uptime (the generic cell rate algorithm, ITU-T
    /// I.371). All 0 at first, so that the kernel maps only what is used of the 8 MiB.
    full_at: Mutex<Vec<u64>>,
    hasher: RandomState,
    configured: u32,
}

/// What a request is, as far as limits go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Anything at all.
    Request,
    /// Registers a device.
    Register,
    /// Enrols a relay.
    Enrol,
    /// Opens a relay's stream.
    Prove,
    /// Opens or redeems an invite.
    Invite,
    /// Asks for changes, and mostly for a snapshot.
    Follow,
    /// Writes, and tells a whole party.
    Change,
    /// Leaves rows that stay for days: a party, an invite, a kick.
    Make,
}

/// Who asks.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) enum Source {
    Network(Network),
    Device(DeviceKey),
}

/// What a source may ask.
struct Allowance {
    /// At once.
    burst: u64,
    per_minute: u64,
}

impl Purpose {
    const COUNT: usize = Self::Make as usize + 1;

    /// The share of the configured rate. With 600, what people need at most:
    ///
    /// - All 250 members of a party behind one address come back in the same minute: a registration,
    ///   a stream, a ticket and an entry each, sent up to four times on a bad line, are 4,000 of 6,000
    ///   requests, 1,000 of 1,200 changes and 250 of 1,200 snapshots. Registrations beyond 600 wait
    ///   for the next minute.
    /// - A device that joins opens, redeems, publishes and gets a ticket, up to four times each: 16 of
    ///   300 requests, 8 of 150 look-ups, 4 of 120 changes.
    /// - A host makes 20 parties, each with an entry, an invite and a kick, and leaves them: 100 of 120
    ///   changes, 60 of 300 things made. One of a tournament makes an invite for each of 250 players.
    ///
    /// And what a loop gets: a device 2 changes a second and, once its burst is spent, 1 party, invite
    /// or kick in 2 s; a network 20 and 1 a second.
    fn allowance(self, source: &Source, configured: u32) -> Option<Allowance> {
        let all = u64::from(configured);
        let steady = |rate| Some(Allowance { burst: rate, per_minute: rate });
        match (self, source) {
            (Self::Request, Source::Network(_)) => steady(10 * all),
            (Self::Request, Source::Device(_)) => steady(all.div_ceil(2)),
            (Self::Register | Self::Invite, Source::Network(_)) => steady(all),
            (Self::Enrol, Source::Network(_)) => steady(all.div_ceil(10)),
            (Self::Prove, Source::Network(_)) => steady(all.div_ceil(2)),
            (Self::Invite, Source::Device(_)) => steady(all.div_ceil(4)),
            (Self::Follow | Self::Change, Source::Network(_)) => steady(2 * all),
            (Self::Follow, Source::Device(_)) => steady(all.div_ceil(10)),
            (Self::Change, Source::Device(_)) => steady(all.div_ceil(5)),
            (Self::Make, Source::Network(_)) => {
                Some(Allowance { burst: all, per_minute: all.div_ceil(10) })
            }
            (Self::Make, Source::Device(_)) => {
                Some(Allowance { burst: all.div_ceil(2), per_minute: all.div_ceil(20) })
            }
            // Without a token yet.
            (Self::Register | Self::Enrol | Self::Prove, Source::Device(_)) => None,
        }
    }
}

impl Limiter {
    /// `configured` requests a minute, of which each purpose has its share; with 0 everything passes.
    pub(crate) fn new(configured: u32) -> Self {
        let full_at = Mutex::new(vec![0; 2 * Purpose::COUNT * BUCKETS]);
        Self { full_at, hasher: RandomState::new(), configured }
    }

    /// Takes one request from the source's bucket; `false` when there is none left.
    pub(crate) fn allows(&self, purpose: Purpose, source: Source, uptime_s: u64) -> bool {
        if self.configured == 0 {
            return true;
        }
        let Some(allowance) = purpose.allowance(&source, self.configured) else { return true };
        let step_us = (MINUTE_US / allowance.per_minute).max(1);
        let now_us = uptime_s.saturating_mul(1_000_000);
        let table = 2 * purpose as usize + usize::from(matches!(source, Source::Device(_)));
        let bucket = self.hasher.hash_one(source) as usize % BUCKETS;

        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = &mut full_at[table * BUCKETS + bucket];
        let next = (*full_at).max(now_us) + step_us;
        let allowed = next - now_us <= allowance.burst * step_us;
        if allowed {
            *full_at = next;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const DEVICE: Source = Source::Device(DeviceKey([1; 32]));

    fn network(last: u8) -> Source {
        Source::Network(IpAddr::from([192, 0, last, 1]).into())
    }

    #[test]
    fn a_source_is_limited_alone_and_recovers() {
        let limiter = Limiter::new(60);
        let ask = |last, at| limiter.allows(Purpose::Register, network(last), at);
        assert_eq!((0..100).filter(|_| ask(1, 10)).count(), 60);
        assert!(ask(2, 10), "another source");
        assert!(limiter.allows(Purpose::Enrol, network(1), 10), "another purpose");
        assert!(!ask(1, 10));
        assert_eq!((0..100).filter(|_| ask(1, 13)).count(), 3, "one a second");
        assert_eq!((0..100).filter(|_| ask(1, 1_000)).count(), 60, "no more than the burst");
        assert!(Limiter::new(0).allows(Purpose::Enrol, network(1), 0));
    }

    #[test]
    fn a_loop_is_slowed_down_more_than_people() {
        let limiter = Limiter::new(600);
        let make = |at| limiter.allows(Purpose::Make, DEVICE, at);
        assert_eq!((0..1_000).filter(|_| make(0)).count(), 300, "a tournament at once");
        let hour = (1..3_600).flat_map(|second| [second; 10]);
        let made = hour.filter(|second| make(*second)).count();
        assert!((1_795..=1_801).contains(&made), "then one in 2 s: {made}");
        assert!((0..1_000).all(|_| limiter.allows(Purpose::Register, DEVICE, 0)));
    }

    #[test]
    fn every_limit_lets_one_pass() {
        let limiter = Limiter::new(1);
        for purpose in [Purpose::Request, Purpose::Invite, Purpose::Change, Purpose::Make] {
            assert!(limiter.allows(purpose, DEVICE, 0) && limiter.allows(purpose, network(1), 0));
            assert!(!limiter.allows(purpose, DEVICE, 0), "{purpose:?}");
        }
    }
}
