//! `lanrage-bench`: arguments and exit code. What is measured, and how, is in the library.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use lanrage_bench::page;
use lanrage_bench::results::Results;
use lanrage_bench::suite::{self, Extent};

/// Measures the relay against the kernel's floor and against rivals. Needs root, two CPUs, and a
/// machine that does nothing else.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 all bounds hold; 1 it could not be measured; 2 wrong \
                          arguments; 3 a bound does not hold.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the trials
    List,
    /// Measure, and write the results
    Run {
        /// Fewer and shorter rounds: to see where one stands, not to claim
        #[arg(long)]
        quick: bool,
        /// One trial
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// Where the results go
        #[arg(long, value_name = "FILE", default_value = "bench/results/latest.json")]
        out: PathBuf,
    },
    /// Make the book's page and plots of results
    Page {
        /// A file that `run` wrote
        #[arg(default_value = "bench/results/latest.json")]
        results: PathBuf,
        /// The book's sources
        #[arg(default_value = "docs/src")]
        book: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // There is nobody to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "lanrage-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List => {
            for (name, what) in suite::list() {
                say(&format!("{name:10} {what}"))?;
            }
        }
        Command::Run { quick, only, out } => {
            let extent = if quick { Extent::QUICK } else { Extent::WHOLE };
            let results = suite::run(extent, only.as_deref(), |line| {
                // A run goes on when nobody watches it.
                let _ = writeln!(io::stderr(), "{line}");
            })?;
            results.write(&out)?;
            for figure in &results.figures {
                let bound = figure.must_be().map_or(String::new(), |bound| format!(" ({bound})"));
                let [low, high] = figure.spread;
                let broken = if figure.holds == Some(false) { ": DOES NOT HOLD" } else { "" };
                say(&format!(
                    "{}: {:.3}{bound}, {low:.3} to {high:.3}{broken}",
                    figure.name, figure.value
                ))?;
            }
            anyhow::ensure!(
                results.failures.is_empty(),
                "not all could be measured:\n{}",
                results.failures.join("\n")
            );
            if !results.broken().is_empty() {
                return Ok(ExitCode::from(3));
            }
        }
        Command::Page { results, book } => page::write(&Results::read(&results)?, &book)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}").context("writing to standard output")
}
