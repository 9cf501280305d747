//! Look-ups of the relay's lease table beside those of concurrent maps that hold the same leases, and
//! the core's work a datagram above the table. One line of JSON a figure, to standard output.
//!
//! Rounds alternate between the contestants; the first is dropped. *Cold* walks all leases in an order
//! without any pattern, *hot* one batch of them again and again.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

mod contestant;
mod figure;
mod population;
mod shard;

use contestant::{BATCH, Contestant, Dashmap, Locked, Papaya, Plain, Prefetched};
use figure::Figure;
use population::{Population, Question};
use shard::Bench;

/// Multiples of a batch, and of a session's four members.
const SIZES: [(&str, u32); 3] = [("1 k", 1_024), ("100 k", 102_400), ("1 M", 1_024_000)];
/// With the first, which is dropped.
const ROUNDS: usize = 10;
/// Datagrams a contestant and round, at least.
const QUESTIONS: usize = 1 << 19;

fn main() -> anyhow::Result<()> {
    for (size, leases) in SIZES {
        let population = Population::new(leases)?;
        let all = &population.questions[..];
        let table = Prefetched(population.reader.clone());
        let plain = Plain(population.reader.clone());
        let papaya = Papaya::new(&population);
        let dashmap = Dashmap::new(&population);
        let locked = Locked::new(&population);
        let mut bench = Bench::new(population.reader.clone());
        for (kind, questions) in [("hot", &all[..BATCH]), ("cold", all)] {
            let mut figures = [
                Figure::new(table.name(), size, kind),
                Figure::new(plain.name(), size, kind),
                Figure::new(papaya.name(), size, kind),
                Figure::new(dashmap.name(), size, kind),
                Figure::new(locked.name(), size, kind),
                Figure::new("core", size, kind),
            ];
            for _ in 0..ROUNDS {
                let before = bench.forwarded();
                let times = [
                    look_ups(&table, questions)?,
                    look_ups(&plain, questions)?,
                    look_ups(&papaya, questions)?,
                    look_ups(&dashmap, questions)?,
                    look_ups(&locked, questions)?,
                    each(questions, |batch| bench.handle(batch)),
                ];
                let forwarded = bench.forwarded() - before;
                ensure!(forwarded == asked(questions) as u64, "the core dropped datagrams");
                for (figure, time) in figures.iter_mut().zip(times) {
                    figure.round(time);
                }
            }
            for figure in figures {
                let line = serde_json::to_string(&figure.summary()?)?;
                writeln!(io::stdout(), "{line}").context("writing to standard output")?;
            }
        }
    }
    Ok(())
}

/// Nanoseconds a pair of look-ups.
fn look_ups(contestant: &impl Contestant, questions: &[Question]) -> anyhow::Result<f64> {
    let mut found = 0;
    let time = each(questions, |batch| {
        let begin = Instant::now();
        contestant.answer(batch, |answer| found += usize::from(black_box(answer).is_some()));
        begin.elapsed()
    });
    ensure!(found == asked(questions), "{} did not find every lease", contestant.name());
    Ok(time)
}

/// Walks the questions as often as it takes; nanoseconds a question.
fn each(questions: &[Question], mut handle: impl FnMut(&[Question]) -> Duration) -> f64 {
    let mut time = Duration::ZERO;
    for _ in 0..walks(questions) {
        time += questions.chunks(BATCH).map(&mut handle).sum::<Duration>();
    }
    time.as_nanos() as f64 / asked(questions) as f64
}

fn walks(questions: &[Question]) -> usize {
    QUESTIONS.div_ceil(questions.len())
}

fn asked(questions: &[Question]) -> usize {
    walks(questions) * questions.len()
}
