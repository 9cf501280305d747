//! What several rounds say together.

use anyhow::Context as _;
use lanrage_bench::statistics;
use serde::Serialize;

/// A figure and its rounds.
#[derive(Debug)]
pub(crate) struct Figure {
    name: String,
    rounds: Vec<f64>,
}

/// A figure as written.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    name: String,
    /// The median.
    value: f64,
    unit: &'static str,
    rounds: usize,
    /// First and third quartile.
    spread: [f64; 2],
}

impl Figure {
    pub(crate) fn new(contestant: &str, size: &str, kind: &str) -> Self {
        Self { name: format!("{contestant}, {size} leases, {kind}"), rounds: Vec::new() }
    }

    pub(crate) fn round(&mut self, value: f64) {
        self.rounds.push(value);
    }

    /// Without the first round.
    pub(crate) fn summary(&self) -> anyhow::Result<Summary> {
        let (_, counted) = self.rounds.split_first().context("there was no round")?;
        let of_all = statistics::Summary::of(counted).context("there was but one round")?;
        let rounded = |value: f64| (value * 10.0).round() / 10.0;
        Ok(Summary {
            name: self.name.clone(),
            value: rounded(of_all.median),
            unit: "ns",
            rounds: counted.len(),
            spread: [of_all.low, of_all.high].map(rounded),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_round_is_dropped() {
        let mut figure = Figure::new("table", "1 k", "hot");
        assert!(figure.summary().is_err());
        for value in [90.0, 3.0, 1.0, 5.0, 4.0, 2.0] {
            figure.round(value);
        }
        let summary = figure.summary().expect("there are rounds");
        assert_eq!((summary.value, summary.spread, summary.rounds), (3.0, [2.0, 4.0], 5));
    }
}
