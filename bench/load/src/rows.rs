//! The figures that are no comparison of contestants under one workload: how the relay stands a
//! million leases, floods, storms and binds.

use anyhow::Context as _;
use lanrage_relay_uring::BackendKind;

use crate::contestant::{Contestant, Running};
use crate::results::Figure;
use crate::suite::Extent;
use crate::topology::Topology;
use crate::workload::Workload;

mod binds;
mod flap;
mod floods;
mod scale;
mod storm;

/// What a row is measured by.
#[derive(Debug)]
pub struct Setting<'a> {
    /// The network.
    pub topology: &'a Topology,
    /// How long.
    pub extent: Extent,
    /// What an idle machine uses, in CPU seconds a second.
    pub baseline: f64,
    /// What the best reflector carries of game traffic, datagrams a second.
    pub capacity: f64,
}

/// Measures, and tells of each round.
type Measure = fn(&Setting<'_>, &mut dyn FnMut(&str)) -> anyhow::Result<Vec<Figure>>;

/// Some figures that are measured together.
#[derive(Debug)]
pub struct Row {
    /// As on the command line.
    pub name: &'static str,
    /// In words.
    pub what: &'static str,
    /// See there.
    pub measure: Measure,
}

/// In the order in which they are measured.
pub const ROWS: [Row; 6] = [
    Row {
        name: "million",
        what: "1,000,000 leases, uniformly random, beside 1,000; flat out",
        measure: scale::cpu,
    },
    Row {
        name: "memory",
        what: "memory of a relay with 1,000,000 leases in 250,000 parties",
        measure: scale::memory,
    },
    Row {
        name: "binds",
        what: "HELLO and BIND by as many clients, over sockets",
        measure: binds::measure,
    },
    Row {
        name: "flap",
        what: "1,000 leases at 0.8 of the reflector's rate, while 50 members beside them move, one each 20 ms",
        measure: flap::measure,
    },
    Row {
        name: "storm",
        what: "1,000 players beside 16 parties of 250 that broadcast all they may",
        measure: storm::measure,
    },
    Row {
        name: "floods",
        what: "HELLO, BIND and junk at half of the best reflector's rate, beside players",
        measure: floods::measure,
    },
];

/// The relay as it is installed.
const RELAY: Contestant = Contestant::Relay(BackendKind::Uring);

/// Starts it.
fn start(setting: &Setting<'_>, workload: &Workload) -> anyhow::Result<Running> {
    RELAY.start(setting.topology, workload)
}

/// The relay in it.
fn relay(running: &Running) -> anyhow::Result<&crate::contestant::relay::Relay> {
    running.relay().context("a relay runs")
}
