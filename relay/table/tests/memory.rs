//! What a table of a million leases costs, computed and seen.

#![cfg(all(not(loom), target_os = "linux"))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::Ipv6Addr;

use lanrage_relay_table::{
    Capacity, Endpoint, LocalId, Member, NewLease, SessionId, Tag, Writer, new,
};

const LEASES: u32 = 1_000_000;
const MIB: usize = 1 << 20;

#[test]
fn a_million_leases_in_parties_of_four() {
    let exact = Capacity { leases: LEASES, session_lines: LEASES / 4 };
    let default = Capacity::for_leases(LEASES);
    for (name, capacity) in [("a line for each party of four", exact), ("for_leases", default)] {
        let cost = capacity.footprint();
        let total = cost.slabs + cost.writer;
        println!(
            "{name}: slabs {} + writer {} bytes, {} a lease",
            cost.slabs,
            cost.writer,
            total / LEASES as usize
        );
        assert!(total <= 256_000_000, "{total}");
    }

    let before = resident();
    let (mut writer, _reader) = new(default).unwrap();
    let empty = resident();
    fill(&mut writer);
    let full = resident();
    let cost = default.footprint();
    let computed = cost.slabs + cost.writer;
    println!(
        "resident: {} MiB when made, {} MiB when full",
        (empty - before) / MIB,
        (full - before) / MIB
    );
    assert!(
        (empty - before).abs_diff(computed) < 8 * MIB,
        "{} resident, {computed} computed",
        empty - before
    );
    assert!(full - empty < MIB, "grew by {}", full - empty);
    assert_eq!(writer.counts().sessions, LEASES as usize / 4);
}

fn fill(writer: &mut Writer) {
    for number in 0..LEASES {
        let new = NewLease {
            session: SessionId(u64::from(number / 4)),
            member: Member::new((number % 4) as u8 + 1).unwrap(),
            endpoint: Endpoint {
                ip: Ipv6Addr::from(u128::from(number)),
                port: 1,
                local: LocalId(0),
            },
            tag: Tag(number),
            rate_class: 0,
        };
        let random = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let handle = writer.insert_pending(&new, random, 0).unwrap().handle;
        writer.activate(handle).unwrap();
    }
}

/// Bytes of this process in memory: VmRSS of /proc/self/status, in KiB (proc_pid_status(5)).
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}
