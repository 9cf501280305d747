//! A log-linear histogram: 32 buckets to each doubling, so a bucket is at most 3 % wide.

/// Sub-buckets of a doubling, as a power of two.
pub const LINEAR_BITS: u32 = 5;
/// One doubling for each bit of a value, rounded up so that an index can be masked.
pub const BUCKETS: usize = 64 << LINEAR_BITS;

/// Counts by value, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram(Vec<u64>);

impl Default for Histogram {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

impl Histogram {
    /// From counts by [`bucket`].
    #[must_use]
    pub fn new(counts: Vec<u64>) -> Self {
        Self(counts)
    }

    /// Values counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(self.0.iter().zip(&earlier.0).map(|(now, then)| now - then).collect())
    }

    /// Takes in the counts of another.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, other)| *mine += other);
    }

    /// The value below which `quantile` (0 to 1) of all lie, in nanoseconds: the middle of its
    /// bucket. `None` if nothing was counted.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let rank = (self.count() as f64 * quantile).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.0
            .iter()
            .position(|count| {
                seen += count;
                seen >= rank
            })
            .map(middle)
    }
}

/// The bucket of a value; values below 32 share those of 32 to 63.
#[must_use]
pub fn bucket(value: u64) -> usize {
    let value = value | 1 << LINEAR_BITS;
    let exponent = 63 - value.leading_zeros();
    let linear = value >> (exponent - LINEAR_BITS) & ((1 << LINEAR_BITS) - 1);
    ((exponent << LINEAR_BITS) as u64 | linear) as usize
}

fn middle(bucket: usize) -> f64 {
    let exponent = (bucket >> LINEAR_BITS) as i32;
    let linear = (bucket & ((1 << LINEAR_BITS) - 1)) as f64;
    2f64.powi(exponent) * (1.0 + (linear + 0.5) / f64::from(1 << LINEAR_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_at_most_a_32nd_wide() {
        for value in [32, 33, 1000, 123_456, 9_999_999_999, u64::MAX / 3] {
            let middle = middle(bucket(value));
            assert!((middle / value as f64 - 1.0).abs() < 1.0 / 32.0, "{value}: {middle}");
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_are_of_what_was_counted() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for value in 1..=1000u64 {
            histogram.0[bucket(value * 1000)] += 1;
        }
        for (quantile, expected) in [(0.5, 500_000.0), (0.99, 990_000.0), (1.0, 1_000_000.0)] {
            let value = histogram.quantile(quantile).unwrap();
            assert!((value / expected - 1.0f64).abs() < 0.04, "{quantile}: {value}");
        }
        let earlier = histogram.clone();
        histogram.0[bucket(7_000_000)] += 1;
        let later = histogram.since(&earlier);
        assert_eq!(later.count(), 1);
    }
}
