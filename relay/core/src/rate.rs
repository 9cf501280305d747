//! Token buckets as one word each: the time, in nanoseconds since the relay's start, at which the
//! bucket is full again (the virtual scheduling form of GCRA, ITU-T I.371 annex A).

const NS_PER_MS: u64 = 1_000_000;
const FRACTION_BITS: u32 = 20;

/// So many units a second, with a burst.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Nanoseconds a unit, in 2^-20: exact to 1 % up to 10^13 units a second.
    cost: u64,
    burst_ns: u64,
}

impl Rate {
    /// Everything passes.
    pub const UNLIMITED: Self = Self { cost: 0, burst_ns: u64::MAX };

    /// `units` a second, at least 1; as many as come in `burst_ms` may come at once.
    pub const fn per_second(units: u64, burst_ms: u64) -> Self {
        Self { cost: (1_000_000_000 << FRACTION_BITS) / units, burst_ns: burst_ms * NS_PER_MS }
    }

    /// The rate that [`Rate::cost`] gave.
    pub(crate) const fn of_cost(cost: u64, burst_ms: u64) -> Self {
        Self { cost, burst_ns: burst_ms * NS_PER_MS }
    }

    /// What tells it from other rates with its burst.
    pub(crate) const fn cost(self) -> u64 {
        self.cost
    }

    const fn cost_ns(self, units: u64) -> u64 {
        self.cost.saturating_mul(units) >> FRACTION_BITS
    }

    /// How many of `items`, each of `units`, pass now. What passes last may overdraw the bucket.
    pub const fn admits(self, full_at: u64, now_ms: u64, items: u64, units: u64) -> u64 {
        let debt = full_at.saturating_sub(now_ms * NS_PER_MS);
        if debt > self.burst_ns {
            return 0;
        }
        match self.cost_ns(units) {
            0 => items,
            _ if items <= 1 => items,
            cost => {
                let fit = (self.burst_ns - debt) / cost + 1;
                if items < fit { items } else { fit }
            }
        }
    }

    /// The bucket after `units` have passed, whether or not it admits them.
    pub const fn charge(self, full_at: u64, now_ms: u64, units: u64) -> u64 {
        let now = now_ms * NS_PER_MS;
        let from = if full_at > now { full_at } else { now };
        from.saturating_add(self.cost_ns(units))
    }
}

/// A rate and its bucket.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    rate: Rate,
    full_at: u64,
}

impl Meter {
    /// A full bucket.
    pub const fn new(rate: Rate) -> Self {
        Self { rate, full_at: 0 }
    }

    /// Whether the bucket has a unit.
    pub const fn has(&self, now_ms: u64) -> bool {
        self.rate.admits(self.full_at, now_ms, 1, 1) == 1
    }

    /// Takes one unit if the bucket has it.
    pub const fn take(&mut self, now_ms: u64) -> bool {
        let admitted = self.has(now_ms);
        if admitted {
            self.full_at = self.rate.charge(self.full_at, now_ms, 1);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_gives_its_burst_and_then_its_rate() {
        let mut meter = Meter::new(Rate::per_second(1000, 100));
        let burst = (0..1000).filter(|_| meter.take(0)).count();
        assert_eq!(burst, 101);
        let later = (1..=1000).filter(|ms| meter.take(*ms)).count();
        assert!((999..=1001).contains(&later), "{later} in a second");
        assert!((0..50).all(|_| meter.take(60_000)), "full again after a pause");
    }

    #[test]
    fn a_run_passes_in_part() {
        let rate = Rate::per_second(1_000_000, 10);
        assert_eq!(
            rate.admits(0, 5, 64, 1000),
            11,
            "ten thousand bytes and the one that overdraws"
        );
        let full_at = rate.charge(0, 5, 11_000);
        assert_eq!(rate.admits(full_at, 5, 64, 1000), 0);
        assert_eq!(rate.admits(full_at, 16, 64, 1000), 11);
    }

    #[test]
    fn no_limit_is_no_limit() {
        let full_at = Rate::UNLIMITED.charge(0, 7, u64::MAX);
        assert_eq!(Rate::UNLIMITED.admits(full_at, 7, 64, u64::MAX), 64);
    }
}
