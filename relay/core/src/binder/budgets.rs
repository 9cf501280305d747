use std::hash::Hasher as _;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::rate::{Meter, Rate};

/// What the binder spends on each class of datagram, so that a flood of one starves no other.
#[derive(Debug)]
pub(super) struct Budgets {
    /// Answers to HELLO; nothing per prefix, for a forged source would drain its owner's.
    pub(super) hello: Meter,
    /// Noise handshakes and ticket signatures, 0.5 ms each: at most half of the binder's time.
    pub(super) bind: Meter,
    /// Sealed control messages, some microseconds each.
    pub(super) control: Meter,
    /// Resumptions.
    pub(super) resume: Meter,
    /// BIND and RESUME by proven source prefix.
    pub(super) prefixes: Prefixes,
}

impl Budgets {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self {
            hello: Meter::new(Rate::per_second(20_000, 100)),
            bind: Meter::new(Rate::per_second(1_000, 500)),
            control: Meter::new(Rate::per_second(20_000, 100)),
            resume: Meter::new(Rate::per_second(10_000, 500)),
            prefixes: Prefixes::new(key),
        }
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
        let mut hasher = SipHasher13::new_with_key(&self.key);
        match address {
            IpAddr::V4(ip) => hasher.write(&ip.octets()[..3]),
            IpAddr::V6(ip) => hasher.write(&ip.octets()[..7]),
        }
        let slot = hasher.finish() as usize % Self::SLOTS;
        self.meters[slot].take(now_ms)
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
        assert!(prefixes.take("198.51.100.1".parse().unwrap(), 0));
        assert!(prefixes.take("2001:db8::1".parse().unwrap(), 0));
    }
}
