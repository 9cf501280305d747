//! What several rounds say together.

use serde::{Deserialize, Serialize};

/// The middle of the rounds, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// The first quartile.
    pub low: f64,
    /// The third quartile.
    pub high: f64,
}

impl Summary {
    /// Of a figure's rounds. `None` without any.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self { median: at(&sorted, 0.5)?, low: at(&sorted, 0.25)?, high: at(&sorted, 0.75)? })
    }
}

/// Interpolated between the two neighbours, as by R's default (type 7).
fn at(sorted: &[f64], quantile: f64) -> Option<f64> {
    let place = (sorted.len().checked_sub(1)?) as f64 * quantile;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles() {
        assert_eq!(Summary::of(&[]), None);
        let one = Summary { median: 3.0, low: 3.0, high: 3.0 };
        assert_eq!(Summary::of(&[3.0]), Some(one));
        let seven = Summary::of(&[7.0, 1.0, 3.0, 2.0, 5.0, 6.0, 4.0]);
        assert_eq!(seven, Some(Summary { median: 4.0, low: 2.5, high: 5.5 }));
        let even = Summary::of(&[1.0, 2.0, 3.0, 10.0]).unwrap();
        assert_eq!(even.median, 2.5);
    }
}
