//! What is measured, in which order, and what is claimed of it.

use std::time::Duration;

use anyhow::Context as _;
use lanrage_relay_uring::BackendKind;

use crate::contestant::{Contestant, ReflectorKind, Rival};
use crate::machine::Machine;
use crate::results::{Bound, Entry, Figure, Results, Trial};
use crate::round::{self, Load, Outcome};
use crate::rows::{ROWS, Row, Setting};
use crate::statistics::Summary;
use crate::topology::{Topology, tool};
use crate::workload::Workload;

const REFLECTORS: [Contestant; 3] = [
    Contestant::Reflector(ReflectorKind::Bare),
    Contestant::Reflector(ReflectorKind::Recvmmsg),
    Contestant::Reflector(ReflectorKind::IoUring),
];
/// The relay's default back end where it works.
const RELAY: Contestant = Contestant::Relay(BackendKind::Uring);
const RELAY_MMSG: Contestant = Contestant::Relay(BackendKind::Mmsg);

/// What an idle machine may use, in CPU seconds a second: beyond it figures would be of its other work.
const BASELINE_MAX: f64 = 0.05;
const BASELINE_TRIES: usize = 5;
/// Of a paced rate, what the generator must reach.
const PACE_MIN: f64 = 0.98;

/// One trial as it is planned.
#[derive(Debug, Clone)]
struct Plan {
    name: &'static str,
    what: &'static str,
    workload: Workload,
    load: PlannedLoad,
    /// The reflectors' quantity is the denominator of the trial's figure.
    quantity: Quantity,
    bound: Option<f64>,
    /// nftables is shown beside, and rivals are compared with.
    has_rivals: bool,
}

#[derive(Debug, Clone, Copy)]
enum PlannedLoad {
    FlatOut,
    Paced(f64),
    /// Of the best reflector's rate in the trial `game`.
    Part(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    Cpu,
    LatencyP99,
}

impl Quantity {
    fn of(self, outcome: &Outcome, baseline: f64) -> f64 {
        match self {
            Self::Cpu => outcome.machine_ns(baseline),
            Self::LatencyP99 => outcome.latency_ns[1],
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "CPU a packet",
            Self::LatencyP99 => "latency p99",
        }
    }
}

fn plans() -> Vec<Plan> {
    let plan = |name, what, workload, load, bound| Plan {
        name,
        what,
        workload,
        load,
        quantity: Quantity::Cpu,
        bound: Some(bound),
        has_rivals: false,
    };
    vec![
        Plan {
            has_rivals: true,
            ..plan(
                "game",
                "1,000 leases, 120 B, each datagram from another source, flat out",
                Workload::game(1000),
                PlannedLoad::FlatOut,
                1.10,
            )
        },
        plan(
            "game-20k",
            "the same one by one, 20,000 a second",
            Workload::sparse(1000),
            PlannedLoad::Paced(20_000.0),
            1.10,
        ),
        plan(
            "game-60k",
            "the same one by one, 60,000 a second",
            Workload::sparse(1000),
            PlannedLoad::Paced(60_000.0),
            1.10,
        ),
        plan(
            "bulk",
            "4 flows of 1,400 B in trains of 44, segmentation off, flat out",
            Workload::bulk(),
            PlannedLoad::FlatOut,
            1.15,
        ),
        Plan {
            quantity: Quantity::LatencyP99,
            ..plan(
                "latency",
                "1,000 leases, 120 B one by one, at half of the best reflector's rate",
                Workload::sparse(1000),
                PlannedLoad::Part(0.5),
                1.25,
            )
        },
        plan(
            "voice",
            "1,000 leases, 200 B in bunches of 8, flat out",
            Workload::voice(1000),
            PlannedLoad::FlatOut,
            1.10,
        ),
        plan(
            "mixed",
            "game, voice and bulk together, flat out",
            Workload::mixed(),
            PlannedLoad::FlatOut,
            1.10,
        ),
        Plan {
            bound: None,
            ..plan(
                "idle",
                "100,000 leases that do no more than keep alive, one datagram in 25 s each",
                Workload::sparse(100_000),
                PlannedLoad::Paced(4_000.0),
                0.0,
            )
        },
    ]
}

/// The trials' names and what they are.
pub fn list() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = ROWS.iter().map(|row| (row.name, row.what));
    plans().into_iter().map(|plan| (plan.name, plan.what)).chain(rows)
}

/// How long it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Rounds of each trial, the first of which is dropped.
    pub rounds: usize,
    /// Of each contestant in a round.
    pub length: Duration,
    /// Of each flood.
    pub flood: Duration,
    /// What a million is.
    pub million: u32,
    /// Of a pace that is asked for, what the generator must send.
    pub pace: f64,
}

impl Extent {
    /// What claims rest on.
    pub const WHOLE: Self = Self {
        rounds: 9,
        length: Duration::from_secs(3),
        flood: Duration::from_secs(300),
        million: 1_000_000,
        pace: PACE_MIN,
    };
    /// To see where one stands.
    pub const QUICK: Self = Self {
        rounds: 2,
        length: Duration::from_millis(500),
        flood: Duration::from_secs(5),
        million: 1_000_000,
        pace: PACE_MIN,
    };

    /// Fails unless `sent` frames a second are the `rate` that was asked for.
    pub(crate) fn ensure_pace(&self, sent: f64, rate: f64) -> anyhow::Result<()> {
        anyhow::ensure!(
            sent >= rate * self.pace,
            "the generator sent {sent:.0} a second of {rate:.0}: something else uses this machine"
        );
        Ok(())
    }
}

/// Runs all trials, or the one named `only`. `tell` is told of each round.
///
/// # Errors
///
/// No such trial, or a machine that cannot be measured on. A trial that fails is named in the
/// results, and the others go on.
pub fn run(
    extent: Extent,
    only: Option<&str>,
    mut tell: impl FnMut(&str),
) -> anyhow::Result<Results> {
    if let Some(name) = only {
        let is_known = list().any(|(known, _)| known == name);
        anyhow::ensure!(is_known, "no trial {name:?}: `lanrage-bench list` shows them");
    }
    let is_asked = |name: &str| only.is_none_or(|only| only == name);
    let date = tool(&["date", "-u", "+%Y-%m-%dT%H:%M:%SZ"])?.trim().to_owned();
    let topology = Topology::new()?;
    let baseline = quiet(&topology, extent, &mut tell)?;
    let asked: Vec<Plan> = plans().into_iter().filter(|plan| is_asked(plan.name)).collect();
    let absent = absent(&asked);
    absent.iter().for_each(|who| tell(&format!("absent: {who}")));
    let mut results = Results {
        machine: Machine::this(),
        date,
        commit: commit(),
        quick: extent.rounds < Extent::WHOLE.rounds,
        absent,
        figures: Vec::new(),
        trials: Vec::new(),
        failures: Vec::new(),
    };
    for plan in asked {
        let load = match plan.load {
            PlannedLoad::FlatOut => Load::FlatOut { from: 200_000.0 },
            PlannedLoad::Paced(rate) => Load::Paced(rate),
            PlannedLoad::Part(part) => Load::Paced(part * reference_rate(&topology, &results)?),
        };
        match plan.run(&topology, load, extent, baseline, &mut tell) {
            Ok(trial) => {
                results.figures.extend(plan.figures(&trial));
                results.trials.push(trial);
            }
            Err(error) => results.fail(plan.name, &error, &mut tell),
        }
    }
    let rows: Vec<&Row> = ROWS.iter().filter(|row| is_asked(row.name)).collect();
    if rows.is_empty() {
        return Ok(results);
    }
    let capacity = reference_rate(&topology, &results)?;
    let setting = Setting { topology: &topology, extent, baseline, capacity };
    for row in rows {
        match (row.measure)(&setting, &mut tell) {
            Ok(figures) => results.figures.extend(figures),
            Err(error) => results.fail(row.name, &error, &mut tell),
        }
    }
    Ok(results)
}

/// What the idle machine uses. What has just ended may take a moment to go.
fn quiet(topology: &Topology, extent: Extent, tell: &mut impl FnMut(&str)) -> anyhow::Result<f64> {
    let mut baseline = 0.0;
    for _ in 0..BASELINE_TRIES {
        baseline = round::baseline(topology, 2 * extent.length)?;
        tell(&format!("idle: {:.2} % of a core", baseline * 100.0));
        if baseline < BASELINE_MAX {
            return Ok(baseline);
        }
    }
    anyhow::bail!(
        "something else uses this machine, {:.0} % of a core: stop it and run this again",
        baseline * 100.0
    )
}

/// What the best reflector carries of game traffic.
fn reference_rate(topology: &Topology, results: &Results) -> anyhow::Result<f64> {
    let game = results.trials.iter().find(|trial| trial.name == "game");
    if let Some(best) = game.and_then(|trial| best(trial, Quantity::Cpu)) {
        let rates: Vec<f64> = best.rounds.iter().map(Outcome::rate).collect();
        return Ok(Summary::of(&rates).context("rounds")?.median);
    }
    let load = Load::FlatOut { from: 200_000.0 };
    let outcome =
        round::run(topology, REFLECTORS[0], &Workload::game(1000), load, Duration::from_secs(1))?;
    Ok(outcome.rate())
}

impl Plan {
    fn contestants(&self) -> Vec<Contestant> {
        let mut contestants = [&REFLECTORS[..], &[RELAY, RELAY_MMSG]].concat();
        if self.has_rivals {
            contestants.push(Contestant::Nftables);
            let here = Rival::ALL.into_iter().filter(|rival| rival.program().is_ok());
            contestants.extend(here.map(Contestant::Rival));
        }
        contestants
    }

    fn run(
        &self,
        topology: &Topology,
        load: Load,
        extent: Extent,
        baseline: f64,
        tell: &mut impl FnMut(&str),
    ) -> anyhow::Result<Trial> {
        let contestants = self.contestants();
        let mut loads = vec![load; contestants.len()];
        let mut entries: Vec<Entry> = contestants
            .iter()
            .map(|contestant| Entry {
                contestant: contestant.name().into(),
                settings: contestant.settings().into(),
                rounds: Vec::new(),
            })
            .collect();
        for number in 0..extent.rounds {
            for (place, contestant) in contestants.iter().enumerate() {
                let load = &mut loads[place];
                let outcome =
                    round::run(topology, *contestant, &self.workload, *load, extent.length);
                let outcome = match outcome {
                    Ok(outcome) => outcome,
                    // It is only shown: the generator may not be able to saturate a kernel.
                    Err(error) if *contestant == Contestant::Nftables => {
                        tell(&format!("{} {number}: {error:#}", self.name));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let sent = outcome.sent as f64 / outcome.used.wall;
                match load {
                    Load::FlatOut { from } => *from = sent,
                    Load::Paced(rate) => extent.ensure_pace(sent, *rate)?,
                }
                tell(&format!(
                    "{} {number}: {:24} {:7.0}/s, {:5.0} ns a packet, {:4.1} % lost, p99 {:.0} µs",
                    self.name,
                    contestant.name(),
                    outcome.rate(),
                    outcome.machine_ns(baseline),
                    outcome.loss() * 100.0,
                    outcome.latency_ns[1] / 1000.0,
                ));
                if number > 0 {
                    entries[place].rounds.push(outcome);
                }
            }
        }
        Ok(Trial { name: self.name.into(), what: self.what.into(), baseline, entries })
    }

    fn figures(&self, trial: &Trial) -> Vec<Figure> {
        let entry = |contestant: Contestant| {
            trial.entries.iter().find(|entry| entry.contestant == contestant.name())
        };
        let quantity = self.quantity;
        let floor = best(trial, quantity).zip(entry(RELAY)).and_then(|(best, relay)| {
            let what = format!("{}, {} / {}", quantity.as_str(), relay.contestant, best.contestant);
            let name = format!("{}/floor", self.name);
            ratio(name, what, trial.baseline, quantity, [relay, best], self.bound)
        });
        let back_ends = entry(RELAY).zip(entry(RELAY_MMSG)).and_then(|(uring, mmsg)| {
            let what = format!("{}, relay io_uring / relay recvmmsg", quantity.as_str());
            let name = format!("{}/back-ends", self.name);
            ratio(name, what, trial.baseline, quantity, [uring, mmsg], None)
        });
        let is_game = self.name == "game";
        let calls = entry(RELAY).filter(|_| is_game).and_then(|relay| {
            let calls: Vec<f64> = relay.rounds.iter().filter_map(|round| round.syscalls).collect();
            let what = "the relay's system calls a datagram received, io_uring";
            Figure::of("game/syscalls", what, &calls, Some(Bound::AtMost(0.1)))
        });
        let rivals = Rival::ALL.into_iter().filter_map(|rival| {
            let (relay, of) = entry(RELAY).zip(entry(Contestant::Rival(rival)))?;
            let what = format!("{}, {} / {}", quantity.as_str(), relay.contestant, of.contestant);
            let name = format!("{}/{}", self.name, rival.name());
            ratio(name, what, trial.baseline, quantity, [relay, of], Some(rival_bound(rival)))
        });
        floor.into_iter().chain(back_ends).chain(calls).chain(rivals).collect()
    }
}

/// Of a rival's CPU a packet, what the relay may use.
fn rival_bound(rival: Rival) -> f64 {
    match rival {
        Rival::Coturn | Rival::TurnServer => 0.55,
        Rival::Quilkin => 0.30,
    }
}

/// Rivals that plans call for and that are not here.
fn absent(plans: &[Plan]) -> Vec<String> {
    if !plans.iter().any(|plan| plan.has_rivals) {
        return Vec::new();
    }
    let why = |rival: Rival| Some(format!("{}: {:#}", rival.name(), rival.program().err()?));
    Rival::ALL.into_iter().filter_map(why).collect()
}

/// The reflector with the lowest median.
fn best(trial: &Trial, quantity: Quantity) -> Option<&Entry> {
    let median = |entry: &Entry| {
        let values: Vec<f64> =
            entry.rounds.iter().map(|round| quantity.of(round, trial.baseline)).collect();
        Summary::of(&values).map_or(f64::INFINITY, |summary| summary.median)
    };
    let is_reflector = |entry: &&Entry| REFLECTORS.iter().any(|one| one.name() == entry.contestant);
    trial.entries.iter().filter(is_reflector).min_by(|a, b| median(a).total_cmp(&median(b)))
}

/// One entry over the other, round by round: neighbours in time share the machine's mood.
fn ratio(
    name: String,
    what: String,
    baseline: f64,
    quantity: Quantity,
    [entry, by]: [&Entry; 2],
    bound: Option<f64>,
) -> Option<Figure> {
    let ratios: Vec<f64> = entry
        .rounds
        .iter()
        .zip(&by.rounds)
        .map(|(round, by)| quantity.of(round, baseline) / quantity.of(by, baseline))
        .collect();
    Figure::of(&name, &what, &ratios, bound.map(Bound::AtMost))
}

fn commit() -> String {
    let commit = tool(&["git", "rev-parse", "--short=12", "HEAD"]).unwrap_or_default();
    let differs = tool(&["git", "status", "--porcelain", "-uno"]).is_ok_and(|s| !s.is_empty());
    format!("{}{}", commit.trim(), if differs { "+" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Used;

    fn outcome(machine: f64) -> Outcome {
        let used = Used { wall: 1.0, process: machine, machine, busy: machine, waits: 0 };
        Outcome {
            sent: 1000,
            delivered: 1000,
            delivered_by_class: vec![1000],
            strays: 0,
            used,
            latency_ns: [1.0, machine, 3.0],
            syscalls: None,
        }
    }

    fn entry(contestant: Contestant, machine: &[f64]) -> Entry {
        let rounds = machine.iter().copied().map(outcome).collect();
        Entry { contestant: contestant.name().into(), settings: String::new(), rounds }
    }

    #[test]
    fn the_floor_is_the_best_reflector_round_by_round() {
        let plan = plans().remove(0);
        let trial = Trial {
            name: plan.name.into(),
            what: plan.what.into(),
            baseline: 0.1,
            entries: vec![
                entry(REFLECTORS[0], &[0.6, 0.6, 0.6]),
                entry(REFLECTORS[1], &[0.5, 0.6, 0.5]),
                entry(REFLECTORS[2], &[0.9, 0.9, 0.4]),
                entry(RELAY, &[0.5, 0.7, 0.6]),
                entry(RELAY_MMSG, &[0.9, 0.5, 0.5]),
                entry(Contestant::Rival(Rival::Coturn), &[1.7, 1.7, 1.1]),
            ],
        };
        let figures = plan.figures(&trial);
        assert_eq!(figures[0].name, "game/floor");
        assert!(figures[0].what.ends_with("reflector recvmmsg"), "{}", figures[0].what);
        assert!((figures[0].value - 1.2).abs() < 1e-9, "{:?}", figures[0]);
        assert_eq!((figures[0].rounds, figures[0].holds), (3, Some(false)));
        assert_eq!((figures[1].bound, figures[1].holds), (None, None));
        assert_eq!((&*figures[2].name, figures.len()), ("game/coturn", 3));
        assert!((figures[2].value - 0.375).abs() < 1e-9, "{:?}", figures[2]);
        assert_eq!((figures[2].bound, figures[2].holds), (Some(0.55), Some(true)));
    }

    #[test]
    fn trials_have_names_of_their_own() {
        let names: std::collections::BTreeSet<&str> = list().map(|(name, _)| name).collect();
        assert_eq!(names.len(), list().count());
    }
}
