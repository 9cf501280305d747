//! One round: a contestant, a workload, some seconds.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::contestant::{Contestant, Running};
use crate::generator::{Generator, Stream};
use crate::interrupt::Interrupt;
use crate::machine::{Used, Watched};
use crate::sink::{Counted, Sink};
use crate::topology::Topology;
use crate::workload::Workload;

/// How much is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// So many frames a second.
    Paced(f64),
    /// More than the contestant can carry: at least [`LOSS_MIN`] is lost before it.
    FlatOut {
        /// Where the search for that rate begins.
        from: f64,
    },
}

impl Load {
    /// Frames a second, of a load that is flat out those that the search begins with.
    const fn rate(self) -> f64 {
        match self {
            Self::Paced(rate) | Self::FlatOut { from: rate } => rate,
        }
    }
}

/// Less is not flat out.
pub const LOSS_MIN: f64 = 0.05;
/// More wastes the contestant's core on what it cannot carry.
const LOSS_MAX: f64 = 0.12;
/// What a round may lose when it turns out to be another than the search promised.
const LOSS_FAR: f64 = 0.2;
const SEARCHES: usize = 4;
/// Until caches, queues and the contestant's own buffers are as they stay.
pub(crate) const WARM_UP: Duration = Duration::from_millis(400);
const PROBE: Duration = Duration::from_millis(250);

/// What a round showed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Frames the generator sent.
    pub sent: u64,
    /// Datagrams that came through.
    pub delivered: u64,
    /// The same by class, in the order of the workload's groups.
    pub delivered_by_class: Vec<u64>,
    /// Of these, to the wrong receiver.
    pub strays: u64,
    /// CPU time.
    pub used: Used,
    /// Quantiles 0.5, 0.99 and 0.999 of the time from generator to sink, in nanoseconds.
    pub latency_ns: [f64; 3],
    /// System calls a datagram received, by the relay's own account.
    #[serde(default)]
    pub syscalls: Option<f64>,
}

impl Outcome {
    /// Part of what was sent that did not arrive.
    #[must_use]
    pub fn loss(&self) -> f64 {
        1.0 - self.delivered as f64 / self.sent.max(1) as f64
    }

    /// Datagrams a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.delivered as f64 / self.used.wall
    }

    /// CPU time a datagram by the contestant's own account, in nanoseconds.
    #[must_use]
    pub fn process_ns(&self) -> f64 {
        self.used.process * 1e9 / self.delivered.max(1) as f64
    }

    /// CPU time a datagram by the machine's account, in nanoseconds; `baseline` is what an idle
    /// machine uses, in seconds a second.
    #[must_use]
    pub fn machine_ns(&self, baseline: f64) -> f64 {
        (self.used.machine - baseline * self.used.wall) * 1e9 / self.delivered.max(1) as f64
    }
}

/// Sends for `length` what `load` says, through a fresh start of the contestant.
///
/// # Errors
///
/// The contestant does not start, forwards nothing, or the system refuses something.
pub fn run(
    topology: &Topology,
    contestant: Contestant,
    workload: &Workload,
    load: Load,
    length: Duration,
) -> anyhow::Result<Outcome> {
    let running = contestant.start(topology, workload)?;
    let stage = Stage::set(topology, &running, workload)?;
    stage
        .while_sending(|| {
            let Load::FlatOut { mut from } = load else {
                return stage.settle_and_measure(load.rate(), length);
            };
            for _ in 0..SEARCHES {
                let rate = stage.saturate(from)?;
                let outcome = stage.settle_and_measure(rate, length)?;
                if (LOSS_MIN..LOSS_FAR).contains(&outcome.loss()) {
                    return Ok(outcome);
                }
                from = rate;
            }
            bail!("no rate of which 5 to 12 % is lost stays one: something else uses this machine")
        })
        .with_context(|| {
            let said = running.last_words();
            format!("{} under {}, which said last {said:?}", contestant.name(), workload.name)
        })
}

/// What the machine uses while it carries nothing, in CPU seconds a second.
///
/// # Errors
///
/// The system refuses something.
pub fn baseline(topology: &Topology, length: Duration) -> anyhow::Result<f64> {
    let workload = Workload::sparse(4);
    let silence = Running::nobody(&workload);
    let stage = Stage::set(topology, &silence, &workload)?;
    let outcome = stage.while_sending(|| {
        thread::sleep(WARM_UP);
        stage.measure(length)
    })?;
    Ok(outcome.used.machine / outcome.used.wall)
}

/// Generator and sink around a running contestant.
pub(crate) struct Stage<'a> {
    topology: &'a Topology,
    workload: &'a Workload,
    pub(crate) generator: Generator,
    pub(crate) sink: Sink,
    running: &'a Running,
    /// The generator's thread, once it runs.
    thread: OnceLock<Interrupt>,
}

impl<'a> Stage<'a> {
    /// The generator is silent.
    pub(crate) fn set(
        topology: &'a Topology,
        running: &'a Running,
        workload: &'a Workload,
    ) -> anyhow::Result<Self> {
        let streams = workload.streams(topology.road(), &running.prefixes);
        Self::of_streams(topology, running, workload, &streams)
    }

    /// The same, with streams that are not all a workload's.
    pub(crate) fn of_streams(
        topology: &'a Topology,
        running: &'a Running,
        workload: &'a Workload,
        streams: &[Stream],
    ) -> anyhow::Result<Self> {
        let interface = topology.interface();
        let (generator, sink) = topology.enter(|| {
            let generator = Generator::new(interface, streams)?;
            anyhow::Ok((generator, Sink::attach(interface, running.answer_prefix_len)?))
        })??;
        Ok(Self { topology, workload, generator, sink, running, thread: OnceLock::new() })
    }

    /// Runs `f` while the generator does.
    pub(crate) fn while_sending<T>(
        &self,
        f: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let sending = scope.spawn(|| {
                self.topology.enter(|| {
                    let _ = self.thread.set(Interrupt::this_thread()?);
                    while !stop.load(Ordering::Relaxed) {
                        self.generator.run()?;
                    }
                    anyhow::Ok(())
                })?
            });
            while self.thread.get().is_none() && !sending.is_finished() {
                thread::sleep(Duration::from_millis(1));
            }
            let result = f();
            stop.store(true, Ordering::Relaxed);
            while !sending.is_finished() {
                self.thread.get().map_or(Ok(()), |thread| thread.send())?;
                thread::sleep(Duration::from_millis(1));
            }
            let sent = sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sent.context("generating")?;
            result
        })
    }

    /// All streams by their shares.
    pub(crate) fn send_at(&self, rate: f64) -> anyhow::Result<()> {
        Ok(self.generator.set_rate(&self.workload.rates(rate))?)
    }

    fn settle_and_measure(&self, rate: f64, length: Duration) -> anyhow::Result<Outcome> {
        self.send_at(rate)?;
        thread::sleep(WARM_UP);
        self.measure(length)
    }

    /// Finds a rate of which a little more than [`LOSS_MIN`] is lost.
    fn saturate(&self, from: f64) -> anyhow::Result<f64> {
        let mut rate = from;
        // What a fresh start loses says nothing.
        self.send_at(rate)?;
        thread::sleep(WARM_UP);
        for _ in 0..40 {
            self.send_at(rate)?;
            thread::sleep(PROBE / 2);
            let outcome = self.measure(PROBE)?;
            let loss = outcome.loss();
            if outcome.delivered == 0 {
                bail!("nothing arrives");
            }
            if loss > LOSS_MAX {
                // Capacity shrinks under what must be thrown away, so come down in steps.
                rate = (outcome.rate() / (1.0 - LOSS_MAX)).max(rate * 0.7);
            } else if loss < LOSS_MIN {
                // A core that is half idle carries about twice as much.
                rate *= (1.07 / outcome.used.busy.max(0.1)).clamp(1.06 - loss, 1.6);
            } else {
                return Ok(rate);
            }
        }
        bail!("found no rate at which 5 to 12 % is lost: the last was {rate:.0} a second")
    }

    pub(crate) fn measure(&self, length: Duration) -> anyhow::Result<Outcome> {
        let watched = Watched {
            process: self.running.process(),
            sink: self.topology.sink_napi(),
            generator: self.thread.get().context("the generator has not begun")?.thread(),
        };
        let calls = self.calls()?;
        let sent = self.sent()?;
        let counted = self.sink.read()?;
        let before = watched.read()?;
        thread::sleep(length);
        let used = watched.read()?.since(&before);
        let now = self.sink.read()?;
        let sent = self.sent()? - sent;
        let calls =
            calls.zip(self.calls()?).map(|(then, now)| (now[0] - then[0]) / (now[1] - then[1]));
        let counted: Vec<Counted> =
            now.iter().zip(&counted).map(|(now, then)| now.since(then)).collect();
        let mut latency = crate::histogram::Histogram::default();
        counted.iter().for_each(|class| latency.merge(&class.latency));
        Ok(Outcome {
            sent,
            delivered_by_class: counted.iter().map(|class| class.packets).collect(),
            delivered: counted.iter().map(|class| class.packets).sum(),
            strays: counted.iter().map(|class| class.strays).sum(),
            used,
            latency_ns: [0.5, 0.99, 0.999].map(|q| latency.quantile(q).unwrap_or(0.0)),
            syscalls: calls.filter(|calls| calls.is_finite()),
        })
    }

    /// What the relay says of its system calls, and of datagrams received.
    fn calls(&self) -> anyhow::Result<Option<[f64; 2]>> {
        let Some(relay) = self.running.relay() else { return Ok(None) };
        let metrics = relay.scrape()?;
        let of = |name| metrics.sum(&format!("lanrage_relay_{name}"));
        Ok(Some([of("syscalls_total")?, of("packets_received_total")?]))
    }

    fn sent(&self) -> anyhow::Result<u64> {
        Ok(self.generator.sent()?.iter().sum())
    }
}
