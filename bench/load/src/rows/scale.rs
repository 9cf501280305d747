//! A million leases: what they cost a datagram, and in memory.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use super::{RELAY, Setting, relay, start};
use crate::results::{Bound, Figure};
use crate::round::{self, Load, Stage};
use crate::workload::Workload;

const FEW: u32 = 1_000;
/// Megabytes, with binder, hand-over and all else that the process has.
const MEMORY_MAX: f64 = 450.0;
/// Of datagrams, until every lease has sent one.
const TOUCH_RATE: f64 = 100_000.0;

pub(super) fn cpu(
    setting: &Setting<'_>,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Vec<Figure>> {
    let workloads = [setting.extent.million, FEW].map(Workload::game);
    let mut loads = [Load::FlatOut { from: setting.capacity }; 2];
    let mut ratios = Vec::new();
    for number in 0..setting.extent.rounds {
        let mut costs = [0.0; 2];
        for (place, workload) in workloads.iter().enumerate() {
            let (topology, length) = (setting.topology, setting.extent.length);
            let outcome = round::run(topology, RELAY, workload, loads[place], length)?;
            loads[place] = Load::FlatOut { from: outcome.sent as f64 / outcome.used.wall };
            costs[place] = outcome.machine_ns(setting.baseline);
            tell(&format!(
                "million {number}: {:7} leases {:7.0}/s, {:5.0} ns a packet, {:4.1} % lost",
                workload.leases(),
                outcome.rate(),
                costs[place],
                outcome.loss() * 100.0
            ));
        }
        if number > 0 {
            ratios.push(costs[0] / costs[1]);
        }
    }
    let what = "CPU a packet, 1,000,000 leases uniformly random / 1,000 leases";
    Figure::of("million/thousand", what, &ratios, Some(Bound::AtMost(1.20)))
        .map(|figure| vec![figure])
        .context("rounds")
}

pub(super) fn memory(
    setting: &Setting<'_>,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Vec<Figure>> {
    let many = setting.extent.million;
    let workload = Workload::game(many);
    let running = start(setting, &workload)?;
    let stage = Stage::set(setting.topology, &running, &workload)?;
    stage.while_sending(|| {
        stage.send_at(TOUCH_RATE)?;
        thread::sleep(Duration::from_secs_f64(1.2 * f64::from(many) / TOUCH_RATE));
        Ok(())
    })?;
    let relay = relay(&running)?;
    let leases = relay.scrape()?.sum("lanrage_relay_leases{state=\"active\"}")?;
    anyhow::ensure!(leases == f64::from(many), "the relay has {leases} leases of {many}");
    let megabytes = relay.resident()? as f64 / 1e6;
    tell(&format!("memory: {megabytes:.1} MB"));
    let what = "resident memory of the process at 1,000,000 leases in 250,000 parties, MB";
    Figure::of("memory", what, &[megabytes], Some(Bound::AtMost(MEMORY_MAX)))
        .map(|figure| vec![figure])
        .context("a round")
}
