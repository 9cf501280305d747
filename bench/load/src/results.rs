//! What a run leaves behind: figures with their bounds, and every round they rest on.

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::round::Outcome;
use crate::statistics::Summary;

/// The file `bench/results/latest.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// Where.
    pub machine: Machine,
    /// When it began, UTC.
    pub date: String,
    /// The sources' commit; `+` at its end says that files differed from it.
    pub commit: String,
    /// Fewer and shorter rounds.
    pub quick: bool,
    /// Contestants that could not take part, each with its remedy.
    #[serde(default)]
    pub absent: Vec<String>,
    /// What is claimed.
    pub figures: Vec<Figure>,
    /// What was measured.
    pub trials: Vec<Trial>,
    /// What could not be measured, and why: its figures are absent.
    #[serde(default)]
    pub failures: Vec<String>,
}

/// One figure and what it must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Unique among the figures.
    pub name: String,
    /// In words: what is divided by what.
    pub what: String,
    /// The median of its rounds.
    pub value: f64,
    /// What it must be. None: reported only.
    pub bound: Option<f64>,
    /// Whether the bound is one from below.
    #[serde(default)]
    pub at_least: bool,
    /// Whether it keeps to the bound.
    pub holds: Option<bool>,
    /// Rounds it rests on, the dropped first one not counted.
    pub rounds: usize,
    /// First and third quartile.
    pub spread: [f64; 2],
}

/// What a figure must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// No more.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
}

impl Figure {
    /// The median of its rounds. None without rounds.
    #[must_use]
    pub fn of(name: &str, what: &str, rounds: &[f64], bound: Option<Bound>) -> Option<Self> {
        let Summary { median: value, low, high } = Summary::of(rounds)?;
        let (number, at_least, holds) = match bound {
            Some(Bound::AtMost(bound)) => (Some(bound), false, Some(value <= bound)),
            Some(Bound::AtLeast(bound)) => (Some(bound), true, Some(value >= bound)),
            None => (None, false, None),
        };
        Some(Self {
            name: name.into(),
            what: what.into(),
            value,
            bound: number,
            at_least,
            holds,
            rounds: rounds.len(),
            spread: [low, high],
        })
    }

    /// The bound in words, as `≤ 1.10`.
    #[must_use]
    pub fn must_be(&self) -> Option<String> {
        let sign = if self.at_least { '≥' } else { '≤' };
        self.bound.map(|bound| format!("{sign} {bound}"))
    }
}

/// A workload at a load, and how each contestant did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trial {
    /// Unique among the trials.
    pub name: String,
    /// In words.
    pub what: String,
    /// What an idle machine uses, in CPU seconds a second.
    pub baseline: f64,
    /// Those who took part.
    pub entries: Vec<Entry>,
}

/// A contestant's rounds in one trial, the dropped first one excluded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// [`crate::contestant::Contestant::name`].
    pub contestant: String,
    /// How it was set: [`crate::contestant::Contestant::settings`].
    #[serde(default)]
    pub settings: String,
    /// In order; round n of all contestants of a trial ran one after the other.
    pub rounds: Vec<Outcome>,
}

impl Results {
    /// Reads a file of [`write`](Self::write)'s.
    ///
    /// # Errors
    ///
    /// It is not there, or is of another shape.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{}: run `make bench` first", path.display()))?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or written to.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let directory = path.parent().filter(|parent| *parent != Path::new(""));
        let directory = directory.unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let mut file = tempfile::NamedTempFile::new_in(directory)
            .with_context(|| directory.display().to_string())?;
        serde_json::to_writer_pretty(&mut file, self).context("writing results")?;
        file.persist(path).with_context(|| path.display().to_string())?;
        Ok(())
    }

    /// Notes that a trial has no figures.
    pub(crate) fn fail(&mut self, name: &str, error: &anyhow::Error, tell: &mut impl FnMut(&str)) {
        let failure = format!("{name} could not be measured: {error:#}");
        tell(&failure);
        self.failures.push(failure);
    }

    /// Bounded figures that do not hold.
    #[must_use]
    pub fn broken(&self) -> Vec<&Figure> {
        self.figures.iter().filter(|figure| figure.holds == Some(false)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_from_above_or_below() {
        let figure = |bound| Figure::of("name", "what", &[1.0, 3.0, 2.0], bound);
        let holds = |bound| figure(Some(bound)).and_then(|figure| figure.holds);
        assert_eq!(holds(Bound::AtMost(2.0)), Some(true));
        assert_eq!(holds(Bound::AtMost(1.9)), Some(false));
        assert_eq!(holds(Bound::AtLeast(2.0)), Some(true));
        assert_eq!(holds(Bound::AtLeast(2.1)), Some(false));
        let reported = figure(None).unwrap();
        assert_eq!((reported.value, reported.rounds, reported.holds), (2.0, 3, None));
        assert_eq!(Figure::of("name", "what", &[], None), None);
        let at_least = figure(Some(Bound::AtLeast(0.75))).unwrap();
        assert_eq!(at_least.must_be().as_deref(), Some("≥ 0.75"));
    }
}
