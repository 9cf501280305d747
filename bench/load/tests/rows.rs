//! Each row is measured, on the real kernel, if not for long. Nothing here asserts how fast.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use lanrage_bench::rows::{ROWS, Setting};
use lanrage_bench::suite::Extent;
use lanrage_bench::topology::Topology;

/// A flood of half of it disturbs no machine.
const CAPACITY: f64 = 10_000.0;

fn measure(name: &str) -> BTreeMap<String, f64> {
    let topology = Topology::new().unwrap();
    let is_whole = std::env::var_os("LANRAGE_SOAK").is_some();
    let extent = Extent {
        rounds: 2,
        length: Duration::from_millis(300),
        flood: Duration::from_millis(500),
        million: if is_whole { 1_000_000 } else { 10_000 },
        // A machine that runs other things may stall for a part of it.
        pace: 0.5,
    };
    let setting = Setting { topology: &topology, extent, baseline: 0.0, capacity: CAPACITY };
    let row = ROWS.iter().find(|row| row.name == name).unwrap();
    let mut told = Vec::new();
    let figures = (row.measure)(&setting, &mut |line| told.push(line.to_owned())).unwrap();
    assert!(!told.is_empty());
    assert!(figures.iter().all(|figure| figure.rounds > 0 && figure.value.is_finite()));
    figures.into_iter().map(|figure| (figure.name, figure.value)).collect()
}

#[test]
fn memory_of_many_leases() {
    let figures = measure("memory");
    assert!((1.0..450.0).contains(&figures["memory"]), "MB: {figures:?}");
}

#[test]
fn what_a_bind_costs() {
    let figures = measure("binds");
    assert!(figures["binds/floor"] > 0.0, "{figures:?}");
}

#[test]
fn members_that_move() {
    let figures = measure("flap");
    assert!(figures["flap/still"] > 0.0, "{figures:?}");
}

#[test]
fn players_beside_a_storm() {
    let figures = measure("storm");
    assert!(figures["storm/copies"] > 0.0, "broadcasts arrive: {figures:?}");
}

#[test]
fn players_beside_floods() {
    let figures = measure("floods");
    for flood in ["hello", "bind", "junk"] {
        assert_eq!(figures[&format!("flood-{flood}/leases")], 0.0, "{figures:?}");
        assert!(figures[&format!("flood-{flood}/loss")] < 0.5, "{figures:?}");
    }
}
