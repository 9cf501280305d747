use std::hash::Hasher as _;
use std::net::IpAddr;

use lanrage_proto::datagram::Kind;
use siphasher::sip::SipHasher13;

use crate::rate::{Meter, Rate};

/// What the binder spends on each kind of datagram, so that a flood of one starves no other.
///
/// Budgets are shares of time, not counts: a fast machine binds more. The shell measures, and a
/// datagram that a budget refuses is not charged, or a flood would keep its kind in debt.
#[derive(Debug)]
pub(super) struct Budgets {
    /// Answers to HELLO; nothing per prefix, for a forged source would drain its owner's.
    hello: Share,
    /// Noise handshakes and ticket signatures.
    bind: Share,
    /// Sealed control messages.
    control: Share,
    /// Resumptions: a hundred thousand clients may come at once.
    resume: Share,
    /// BIND by proven source prefix.
    pub(super) binds: Prefixes,
    /// RESUME that was not authentic by proven source prefix: those that are cost no more than a
    /// control message, and a restarted relay hears them from everybody.
    pub(super) forgeries: Prefixes,
    /// Whose datagram [`Budgets::charge`] is about.
    admitted: Option<Kind>,
}

impl Budgets {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self {
            hello: Share::quarters(1),
            bind: Share::quarters(3),
            control: Share::quarters(2),
            resume: Share::quarters(3),
            binds: Prefixes::new(key),
            forgeries: Prefixes::new(key),
            admitted: None,
        }
    }

    /// Whether the kind has time left; its datagram is charged if so.
    pub(super) fn admit(&mut self, kind: Kind, now_ms: u64) -> bool {
        let has_time = self.share(kind).is_some_and(|share| share.has_time(now_ms));
        self.admitted = has_time.then_some(kind);
        has_time
    }

    /// Charges what the last admitted datagram took.
    pub(super) fn charge(&mut self, now_ms: u64, ns: u64) {
        if let Some(kind) = self.admitted.take()
            && let Some(share) = self.share(kind)
        {
            share.charge(now_ms, ns);
        }
    }

    const fn share(&mut self, kind: Kind) -> Option<&mut Share> {
        match kind {
            Kind::Hello => Some(&mut self.hello),
            Kind::Bind => Some(&mut self.bind),
            Kind::Control => Some(&mut self.control),
            Kind::Resume => Some(&mut self.resume),
            Kind::Stun
            | Kind::Data
            | Kind::Challenge
            | Kind::Bound
            | Kind::Unsupported
            | Kind::Hint
            | Kind::Resumed
            | Kind::Unknown => None,
        }
    }
}

/// So much of the binder's time, with a burst of half a second.
#[derive(Debug)]
struct Share {
    rate: Rate,
    full_at: u64,
}

impl Share {
    const BURST_MS: u64 = 500;

    const fn quarters(quarters: u64) -> Self {
        let rate = Rate::per_second(quarters * 1_000_000_000 / 4, Self::BURST_MS);
        Self { rate, full_at: 0 }
    }

    const fn has_time(&self, now_ms: u64) -> bool {
        self.rate.admits(self.full_at, now_ms, 1, 1) == 1
    }

    const fn charge(&mut self, now_ms: u64, ns: u64) {
        self.full_at = self.rate.charge(self.full_at, now_ms, ns);
    }
}

/// A direct-mapped table of meters: two prefixes may share one, none can grow it.
#[derive(Debug)]
pub(super) struct Prefixes {
    key: [u8; 16],
    meters: Box<[Meter]>,
}

impl Prefixes {
    const SLOTS: usize = 8192;
    /// A party of 250 behind one address may bind at once.
    const RATE: Rate = Rate::per_second(100, 2_500);

    fn new(key: [u8; 16]) -> Self {
        Self { key, meters: vec![Meter::new(Self::RATE); Self::SLOTS].into() }
    }

    /// Takes one from the meter of the address's /24 or /56.
    pub(super) fn take(&mut self, address: IpAddr, now_ms: u64) -> bool {
        let slot = self.slot(address);
        self.meters[slot].take(now_ms)
    }

    /// Whether the meter of the address's /24 or /56 has one.
    pub(super) fn has(&self, address: IpAddr, now_ms: u64) -> bool {
        self.meters[self.slot(address)].has(now_ms)
    }

    fn slot(&self, address: IpAddr) -> usize {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        match address {
            IpAddr::V4(ip) => hasher.write(&ip.octets()[..3]),
            IpAddr::V6(ip) => hasher.write(&ip.octets()[..7]),
        }
        hasher.finish() as usize % Self::SLOTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_prefix_cannot_use_up_another() {
        let mut prefixes = Prefixes::new([7; 16]);
        let crowd = (0..10_000u32)
            .filter(|at| prefixes.take(IpAddr::from([192, 0, 2, *at as u8]), 0))
            .count();
        assert_eq!(crowd, 251);
        assert!(!prefixes.has("192.0.2.9".parse().unwrap(), 0));
        assert!(prefixes.has("198.51.100.1".parse().unwrap(), 0));
        assert!(prefixes.take("198.51.100.1".parse().unwrap(), 0));
        assert!(prefixes.take("2001:db8::1".parse().unwrap(), 0));
    }

    /// Whatever a handshake costs, BIND gets three quarters of the time.
    #[test]
    fn a_share_is_of_time() {
        for cost_ns in [50_000, 300_000, 2_000_000] {
            let mut budgets = Budgets::new([7; 16]);
            let mut spent_ns = 0;
            for at in 0..400_000 {
                let now_ms = at / 20;
                if budgets.admit(Kind::Bind, now_ms) {
                    budgets.charge(now_ms, cost_ns);
                    spent_ns += cost_ns;
                }
                assert!(budgets.admit(Kind::Hello, now_ms), "a kind uses up its own share");
            }
            let fair_ns = (20_000 + Share::BURST_MS) * 750_000;
            assert!(spent_ns.abs_diff(fair_ns) <= fair_ns / 1000 + cost_ns, "{spent_ns}");
        }
    }
}
