//! What several rounds say together.

use anyhow::Context as _;
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
        let mut sorted = counted.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |of: usize| {
            let place = sorted.len().saturating_sub(1) * of / 4;
            let value = sorted.get(place).context("there was but one round")?;
            anyhow::Ok((value * 10.0).round() / 10.0)
        };
        Ok(Summary {
            name: self.name.clone(),
            value: at(2)?,
            unit: "ns",
            rounds: sorted.len(),
            spread: [at(1)?, at(3)?],
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
