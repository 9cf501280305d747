//! What a relay of a million leases costs, and what its next process takes to go on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{RELAY, given, identity, words};
use lanrage_relay_core::binder::binder_words;
use lanrage_relay_core::{Binder, Classes, Now};
use lanrage_relay_table::Capacity;

const NOW: Now = Now { ms: 5_000, unix_s: 1_800_000_000 };

/// Bytes of this process in memory: VmRSS of /proc/self/status, in KiB (proc_pid_status(5)).
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Table and binder together; rings and the rest of the program have what is left of 450 MB.
#[test]
fn a_million_leases_in_parties_of_four() {
    const LEASES: u32 = 1_000_000;
    let before = resident();
    let capacity = Capacity::for_leases(LEASES);
    let table_words = words(capacity.words());
    let (table, _) = lanrage_relay_table::create(table_words, capacity).unwrap();
    let memory = words(binder_words(capacity));
    let mut binder =
        Binder::new_in(memory, identity(RELAY), table, Classes::default(), [1; 32], NOW).unwrap();
    let empty = resident() - before;
    for number in 0..LEASES {
        binder.give_lease(NOW, &given(number)).unwrap();
    }
    let full = resident() - before;
    println!("resident: {} MB when made, {} MB when full", empty / 1_000_000, full / 1_000_000);
    assert!(full < 400_000_000, "{full}");
    assert!(full - empty < 4_000_000, "grew by {}", full - empty);

    let frozen = binder.freeze();
    drop(binder);
    let begun = std::time::Instant::now();
    let (table, _) = lanrage_relay_table::adopt(table_words).unwrap();
    let adopted = begun.elapsed();
    let binder =
        Binder::thaw(&frozen, memory, identity(RELAY), table, Classes::default(), [1; 32], NOW)
            .unwrap();
    println!("adopted in {adopted:?}, thawed in {:?}", begun.elapsed() - adopted);
    assert_eq!((binder.counts().active, binder.counts().sessions), (1_000_000, 250_000));
}
