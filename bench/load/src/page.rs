//! The page of the book that shows a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::results::{Entry, Results, Trial};
use crate::statistics::Summary;
use crate::svg::{Bar, bars, number};

/// Writes `performance.md` and its plots into the book's sources.
///
/// # Errors
///
/// The directory cannot be written to.
pub fn write(results: &Results, book: &Path) -> anyhow::Result<()> {
    let plots = book.join("performance");
    fs::create_dir_all(&plots).with_context(|| plots.display().to_string())?;
    for trial in &results.trials {
        let path = plots.join(format!("{}.svg", trial.name));
        fs::write(&path, plot(trial)).with_context(|| path.display().to_string())?;
    }
    let path = book.join("performance.md");
    fs::write(&path, page(results)).with_context(|| path.display().to_string())
}

fn plot(trial: &Trial) -> String {
    let entries: Vec<Bar<'_>> = trial
        .entries
        .iter()
        .filter_map(|entry| {
            let summary = summary(entry, |round| round.machine_ns(trial.baseline) / 1000.0)?;
            let is_reference = !entry.contestant.starts_with("relay");
            Some(Bar { label: &entry.contestant, summary, is_reference })
        })
        .collect();
    bars(&format!("{}: CPU a packet", trial.name), "µs", &entries)
}

fn summary(entry: &Entry, quantity: impl Fn(&crate::round::Outcome) -> f64) -> Option<Summary> {
    Summary::of(&entry.rounds.iter().map(quantity).collect::<Vec<_>>())
}

fn page(results: &Results) -> String {
    let machine = &results.machine;
    let mut page = format!(
        "# Performance\n\n<!-- Written by `lanrage-bench page` from bench/results/latest.json. -->\n\n\
         Measured on {} at commit {} by `make bench`{}: {}{}, {} CPUs, {} MiB, Linux {}. How it is \
         measured: [the benchmark](benchmark.md).\n\n\
         | figure | what | value | quartiles | must be | holds |\n|---|---|---|---|---|---|\n",
        results.date,
        results.commit,
        if results.quick { " in its quick form, which claims nothing" } else { "" },
        machine.cpu,
        if machine.virtual_machine { " (a virtual machine)" } else { "" },
        machine.cpus,
        machine.memory_mib,
        machine.kernel,
    );
    for figure in &results.figures {
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| {} | {} | {:.3} | {:.3} to {:.3} | {} | {} |",
            figure.name,
            figure.what,
            figure.value,
            figure.spread[0],
            figure.spread[1],
            figure.must_be().unwrap_or_else(|| "reported".into()),
            figure.holds.map_or("", |holds| if holds { "yes" } else { "**no**" }),
        );
    }
    if !results.absent.is_empty() {
        let _ = write!(page, "\nAbsent: {}.\n", results.absent.join("; "));
    }
    for trial in &results.trials {
        page.push_str(&section(trial));
    }
    page.push_str(&settings(results));
    page
}

/// Each contestant's, once.
fn settings(results: &Results) -> String {
    let entries = results.trials.iter().flat_map(|trial| &trial.entries);
    let settings: BTreeMap<&str, &str> =
        entries.map(|entry| (&*entry.contestant, &*entry.settings)).collect();
    let rows = settings.iter().map(|(contestant, how)| format!("| {contestant} | {how} |\n"));
    let head =
        "\n## Settings\n\nEach contestant has one core.\n\n| contestant | settings |\n|---|---|\n";
    std::iter::once(head.to_owned()).chain(rows).collect()
}

fn section(trial: &Trial) -> String {
    let mut section = format!(
        "\n## {0}\n\n{1}.\n\n![CPU a packet](performance/{0}.svg)\n\n\
         | contestant | packets/s | CPU a packet, µs | by its own account, µs | lost | p50, µs | p99, µs |\n\
         |---|---|---|---|---|---|---|\n",
        trial.name, trial.what
    );
    for entry in &trial.entries {
        let median = |quantity: &dyn Fn(&crate::round::Outcome) -> f64| {
            summary(entry, quantity).map_or("-".into(), |summary| number(summary.median))
        };
        let _ = writeln!(
            section,
            "| {} | {} | {} | {} | {} % | {} | {} |",
            entry.contestant,
            median(&|round| round.rate()),
            median(&|round| round.machine_ns(trial.baseline) / 1000.0),
            median(&|round| round.process_ns() / 1000.0),
            median(&|round| round.loss() * 100.0),
            median(&|round| round.latency_ns[0] / 1000.0),
            median(&|round| round.latency_ns[1] / 1000.0),
        );
    }
    section
}
