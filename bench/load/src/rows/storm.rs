//! Players' latency while others broadcast as much as their rate class allows, and more.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{Setting, start};
use crate::results::{Bound, Figure};
use crate::round::{Stage, WARM_UP};
use crate::workload::Workload;

/// Of the players, datagrams a second.
const PLAYERS: f64 = 10_000.0;
/// A session of class 0 may have 40,000 copies a second: 161 datagrams to 249 others.
const BROADCASTS: f64 = 16.0 * 161.0;

/// Without a copy: none is left.
const SILENCE: Duration = Duration::from_millis(100);
const SILENT_BY: Duration = Duration::from_secs(10);

pub(super) fn measure(
    setting: &Setting<'_>,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Vec<Figure>> {
    let workload = Workload::storm();
    let running = start(setting, &workload)?;
    let stage = Stage::set(setting.topology, &running, &workload)?;
    let (mut ratios, mut copies) = (Vec::new(), Vec::new());
    stage.while_sending(|| {
        for number in 0..setting.extent.rounds {
            let mut p99 = [0.0; 2];
            for (place, broadcasts) in [0.0, BROADCASTS].into_iter().enumerate() {
                stage.generator.set_rate(&[PLAYERS, broadcasts])?;
                thread::sleep(WARM_UP);
                if broadcasts == 0.0 {
                    wait_for_the_last_copy(&stage)?;
                }
                let (begin, sent) = (Instant::now(), stage.generator.sent()?);
                let before = stage.sink.read()?;
                thread::sleep(setting.extent.length);
                let after = stage.sink.read()?;
                let wall = begin.elapsed().as_secs_f64();
                for ((now, then), rate) in
                    stage.generator.sent()?.iter().zip(&sent).zip([PLAYERS, broadcasts])
                {
                    setting.extent.ensure_pace((now - then) as f64 / wall, rate)?;
                }
                let players = after[0].since(&before[0]);
                p99[place] = players.latency.quantile(0.99).context("no player's datagram came")?;
                let others = after[1].since(&before[1]).packets;
                let a_second = others as f64 / setting.extent.length.as_secs_f64();
                tell(&format!(
                    "storm {number}: {broadcasts:5.0} broadcasts/s, {a_second:7.0} copies/s, \
                     players' p99 {:.0} µs, {} of {:.0} came",
                    p99[place] / 1000.0,
                    players.packets,
                    PLAYERS * setting.extent.length.as_secs_f64(),
                ));
                if number > 0 && place > 0 {
                    copies.push(a_second);
                }
            }
            if number > 0 {
                ratios.push(p99[1] / p99[0]);
            }
        }
        Ok(())
    })?;
    let what = "others' latency p99 while 16 parties of 250 broadcast at full budget / idle";
    let shown = "copies a second that the relay sent meanwhile";
    let figures = [
        Figure::of("storm/idle", what, &ratios, Some(Bound::AtMost(2.0))),
        Figure::of("storm/copies", shown, &copies, None),
    ];
    Ok(figures.into_iter().flatten().collect())
}

/// The relay still makes copies of broadcasts that have come already.
fn wait_for_the_last_copy(stage: &Stage<'_>) -> anyhow::Result<()> {
    let deadline = Instant::now() + SILENT_BY;
    while Instant::now() < deadline {
        let before = stage.sink.read()?;
        thread::sleep(SILENCE);
        if stage.sink.read()?[1].since(&before[1]).packets == 0 {
            return Ok(());
        }
    }
    bail!("copies still come {SILENT_BY:?} after the last broadcast");
}
