//! Where UDP is blocked play goes on by streams, and back when it is not.

use std::collections::BTreeSet;
use std::time::Duration;

use lanrage_proto::map::TlsAccess;
use lanrage_proto::{DeviceKey, RelayId};

use crate::net::{Cut, Net, SECRET};

const STEP: Duration = Duration::from_millis(20);
const FALL_BACK: Duration = Duration::from_secs(5);
const RETURN: Duration = Duration::from_secs(15);

/// Members 1 to `count`, of whom `blocked` have no UDP from the start.
fn party(seed: u64, relays: u16, blocked: &[u8]) -> Net {
    let mut net = Net::new(seed, relays);
    net.control.tls = Some(TlsAccess { port: 443.try_into().unwrap(), key: DeviceKey([9; 32]) });
    net.udp_blocked.extend(blocked);
    for number in 1..=2 {
        net.control.add(number, &SECRET);
    }
    for number in 1..=2 {
        net.turn_on(number);
    }
    net
}

/// Numbered packets each way for a while; those of member 1 that member 2 missed, and the reverse.
fn play(net: &mut Net, time: Duration) -> [usize; 2] {
    let end = net.now + time;
    let before = [net.delivered(1), net.delivered(2)];
    let mut sent = Vec::new();
    while net.now < end {
        let payload = format!("number {}", sent.len());
        net.send_udp(1, 2, payload.as_bytes());
        net.send_udp(2, 1, payload.as_bytes());
        sent.push(payload);
        net.run_for(STEP);
    }
    net.run_for(Duration::from_millis(200));
    [1, 2].map(|to| {
        let delivered = &net.nodes[&to].delivered[before[usize::from(to) - 1]..];
        let arrived: BTreeSet<_> = delivered
            .iter()
            .filter_map(|(_, packet)| {
                sent.iter().position(|payload| packet.ends_with(payload.as_bytes()))
            })
            .collect();
        sent.len() - arrived.len()
    })
}

fn by_stream(net: &mut Net, number: u8) -> Vec<bool> {
    net.client(number).leases().iter().map(|lease| lease.state.is_some() && lease.stream).collect()
}

fn streams(net: &mut Net, number: u8) -> usize {
    net.client(number).streams().count()
}

#[test]
fn a_member_without_udp_joins_by_streams() {
    for seed in 0..20 {
        let mut net = party(seed, 2, &[1]);
        let joined = net.run_until(FALL_BACK, |net| {
            net.send_udp(1, 2, b"first");
            net.delivered(2) > 0
        });
        assert!(joined.is_some(), "seed {seed}: {:?}", net.client(1).leases());
        assert_eq!(by_stream(&mut net, 1), [true, true]);
        assert_eq!(by_stream(&mut net, 2), [false, false]);
        assert_eq!(streams(&mut net, 2), 0);
        assert_eq!(play(&mut net, Duration::from_secs(30)), [0, 0], "seed {seed}");
        let status = &net.client(1).leases()[0];
        assert_eq!((status.address, status.reflexive), (None, None));
    }
}

#[test]
fn two_members_without_udp_meet() {
    let mut net = party(3, 1, &[1, 2]);
    net.run_for(FALL_BACK);
    assert_eq!(play(&mut net, Duration::from_secs(10)), [0, 0]);
    assert_eq!((by_stream(&mut net, 1), by_stream(&mut net, 2)), (vec![true], vec![true]));
}

#[test]
fn play_falls_back_when_udp_ends_and_returns_with_it() {
    for seed in 0..20 {
        let mut net = party(100 + seed, 2, &[]);
        net.run_for(Duration::from_secs(3));
        assert_eq!(play(&mut net, Duration::from_secs(3)), [0, 0]);
        assert_eq!(streams(&mut net, 1), 0);
        net.run_for(Duration::from_millis(seed * 53 % 300));

        net.udp_blocked.insert(1);
        let before = (net.delivered(1), net.delivered(2));
        let gap = net.run_until(FALL_BACK, |net| {
            net.send_udp(1, 2, b"there");
            net.send_udp(2, 1, b"back");
            net.run_for(STEP);
            // Of what was sent before the cut some still arrives.
            net.delivered(1) > before.0 + 3 && net.delivered(2) > before.1 + 3
        });
        assert!(gap.is_some(), "seed {seed}: {:?}", net.client(1).leases());
        net.run_for(Duration::from_secs(1));
        assert_eq!(play(&mut net, Duration::from_secs(20)), [0, 0], "seed {seed}: on the stream");

        net.udp_blocked.clear();
        assert_eq!(play(&mut net, RETURN), [0, 0], "seed {seed}: on the way back");
        assert_eq!(by_stream(&mut net, 1), [false, false], "seed {seed}");
        net.run_for(Duration::from_secs(4));
        assert_eq!(streams(&mut net, 1), 0, "seed {seed}: they are closed");
        assert_eq!(play(&mut net, Duration::from_secs(3)), [0, 0]);
    }
}

/// The way back to UDP is open for a moment and then shut again: the stream is still there.
#[test]
fn udp_that_comes_and_goes_costs_little() {
    let mut net = party(7, 1, &[1]);
    net.run_for(FALL_BACK);
    for _ in 0..4 {
        net.udp_blocked.clear();
        let back = net.run_until(RETURN, |net| {
            net.send_udp(1, 2, b"x");
            net.run_for(STEP);
            by_stream(net, 1) == [false]
        });
        assert!(back.is_some());
        net.udp_blocked.insert(1);
        let again = net.run_until(Duration::from_millis(1500), |net| {
            net.send_udp(1, 2, b"x");
            net.run_for(STEP);
            by_stream(net, 1) == [true]
        });
        assert!(again.is_some(), "the stream was kept: {:?}", net.client(1).leases());
    }
}

#[test]
fn a_broken_stream_is_replaced() {
    let mut net = party(8, 2, &[1]);
    net.run_for(FALL_BACK);
    assert_eq!(play(&mut net, Duration::from_secs(2)), [0, 0]);
    net.break_streams(1);
    net.run_for(Duration::from_secs(2));
    assert_eq!(play(&mut net, Duration::from_secs(5)), [0, 0]);
    assert_eq!(by_stream(&mut net, 1), [true, true]);
}

#[test]
fn one_relays_death_opens_no_stream() {
    let mut net = party(9, 2, &[]);
    net.run_for(Duration::from_secs(3));
    net.dead.insert(1);
    play(&mut net, Duration::from_secs(10));
    assert_eq!(streams(&mut net, 1), 0);
    net.dead.clear();
    net.cuts.extend([Cut::ToRelay(1, 1), Cut::FromRelay(1, 2)]);
    play(&mut net, Duration::from_secs(6));
    assert_eq!(streams(&mut net, 1), 2, "no relay works by UDP, whichever way fails");
    assert_eq!(play(&mut net, Duration::from_secs(3)), [0, 0]);
}

#[test]
fn a_relay_without_streams_is_asked_for_none() {
    let mut net = Net::new(10, 1);
    net.control.add(1, &SECRET);
    net.udp_blocked.insert(1);
    net.turn_on(1);
    net.run_for(Duration::from_secs(10));
    assert_eq!(net.client(1).streams().collect::<Vec<RelayId>>(), []);
}
