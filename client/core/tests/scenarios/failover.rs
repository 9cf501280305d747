//! Play goes on within a second of whatever happens to the relay in use.

use std::time::{Duration, Instant};

use lanrage_client_core::Event;
use lanrage_proto::RelayId;
use lanrage_proto::datagram::first_byte;
use lanrage_proto::inner::LeaseState;

use crate::net::{Cut, Link, Net};

const STEP: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    Frozen,
    Cuts(&'static [Cut]),
}

const FAULTS: [Fault; 9] = [
    Fault::Killed,
    Fault::Frozen,
    Fault::Cuts(&[Cut::ToRelay(1, 1)]),
    Fault::Cuts(&[Cut::FromRelay(1, 1)]),
    Fault::Cuts(&[Cut::ToRelay(2, 1)]),
    Fault::Cuts(&[Cut::FromRelay(2, 1)]),
    Fault::Cuts(&[Cut::ToRelay(1, 1), Cut::FromRelay(1, 1)]),
    Fault::Cuts(&[Cut::ToRelay(2, 1), Cut::FromRelay(2, 1)]),
    Fault::Cuts(&[Cut::ToRelay(1, 1), Cut::FromRelay(2, 1)]),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    OneWay,
    BothWays,
}

fn play(net: &mut Net, stream: Stream, time: Duration) {
    let end = net.now + time;
    while net.now < end {
        net.send_udp(1, 2, b"position");
        if stream == Stream::BothWays {
            net.send_udp(2, 1, b"position");
        }
        net.run_for(STEP);
    }
}

fn longest_gap(net: &Net, number: u8, from: Instant) -> Duration {
    let times = net.nodes[&number].delivered.iter().map(|(at, _)| *at).filter(|at| *at >= from);
    let times: Vec<_> = std::iter::once(from).chain(times).chain([net.now]).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
}

fn fail_over(seed: u64, fault: Fault, stream: Stream, latency_ms: u64) -> Duration {
    let mut net = Net::with_members(seed, 2, 2);
    net.link = Link { latency: Duration::from_millis(latency_ms), ..Link::GOOD };
    play(&mut net, stream, Duration::from_secs(3));
    net.run_for(Duration::from_millis(seed * 37 % 250));
    let broken_at = net.now;
    match fault {
        Fault::Killed => {
            net.dead.insert(1);
        }
        Fault::Frozen => net.freeze(1),
        Fault::Cuts(cuts) => net.cuts.extend(cuts),
    }
    play(&mut net, stream, Duration::from_secs(4));
    let gap = longest_gap(&net, 2, broken_at);
    match stream {
        Stream::OneWay => gap,
        Stream::BothWays => gap.max(longest_gap(&net, 1, broken_at)),
    }
}

#[test]
fn play_goes_on_within_1_s_of_any_fault_of_the_relay() {
    let mut worst = Duration::ZERO;
    for fault in FAULTS {
        for stream in [Stream::OneWay, Stream::BothWays] {
            for (seed, latency_ms) in [(1, 5), (2, 20), (3, 20), (4, 40), (5, 60)] {
                let gap = fail_over(seed, fault, stream, latency_ms);
                worst = worst.max(gap);
                let case = format!("{fault:?} {stream:?} {latency_ms} ms, seed {seed}");
                assert!(gap <= Duration::from_secs(1), "{case}: {gap:?}");
            }
        }
    }
    println!("longest gap: {worst:?}");
}

#[test]
fn a_dead_relay_is_noticed_within_1_s_and_comes_back_after_its_restart() {
    let mut net = Net::with_members(9, 2, 2);
    play(&mut net, Stream::BothWays, Duration::from_secs(2));
    let killed_at = net.now;
    net.dead.insert(1);
    play(&mut net, Stream::BothWays, Duration::from_secs(3));
    let dead = Event::Lease { relay: RelayId(1), state: Some(LeaseState::Dead) };
    let (noticed_at, _) =
        net.nodes[&1].events.iter().find(|(_, event)| *event == dead).expect("it is dead");
    assert!(*noticed_at - killed_at <= Duration::from_secs(1), "{:?}", *noticed_at - killed_at);
    assert_eq!(net.paths(1, 2), [RelayId(2)]);

    net.restart_relay(1);
    net.is_tapped = true;
    let before = net.client(1).counters().binds;
    let delivered = net.delivered(2);
    play(&mut net, Stream::BothWays, Duration::from_secs(6));
    assert_eq!(net.paths(1, 2), [RelayId(1)], "{:?}", net.client(1).leases());
    assert_eq!(net.client(1).counters().binds, before + 1);
    let sent = |kind: u8| net.nodes[&1].sent.iter().any(|(_, bytes)| bytes[0] == kind);
    assert!(sent(first_byte::RESUME) && !sent(first_byte::BIND), "without public-key work");
    assert_eq!(net.delivered(2) - delivered, 300, "nothing is lost nor delivered twice");
}

#[test]
fn a_new_port_is_followed_at_once() {
    let mut net = Net::with_members(10, 2, 2);
    play(&mut net, Stream::BothWays, Duration::from_secs(2));
    let at = net.now;
    net.change_port(2);
    play(&mut net, Stream::BothWays, Duration::from_secs(3));
    for number in [1, 2] {
        let gap = longest_gap(&net, number, at);
        assert!(gap < Duration::from_millis(400), "{number}: {gap:?}");
    }
    let port = net.nodes[&2].address.port();
    for lease in net.client(2).leases() {
        assert_eq!(lease.reflexive.unwrap().port(), port);
        assert_eq!(lease.state, Some(LeaseState::Alive));
    }
}

#[test]
fn a_network_change_rebinds_at_once() {
    let mut net = Net::with_members(11, 2, 2);
    net.change_port(2);
    net.act(2, |client, now| client.handle_network_change(now));
    net.run_for(Duration::from_millis(100));
    let port = net.nodes[&2].address.port();
    for lease in net.client(2).leases() {
        assert_eq!(lease.reflexive.unwrap().port(), port);
    }
}

#[test]
fn the_third_relay_stands_in_for_a_dead_one() {
    let mut net = Net::with_members(12, 3, 2);
    assert_eq!(net.client(1).leases().len(), 2);
    net.dead.extend([1, 2]);
    let at = net.now;
    play(&mut net, Stream::BothWays, Duration::from_secs(4));
    assert_eq!(net.paths(1, 2), [RelayId(3)]);
    assert!(longest_gap(&net, 2, at) < Duration::from_secs(2));
}

#[test]
fn an_idle_relays_death_costs_a_new_stream_less_than_1_s() {
    for cuts in [&[Cut::FromRelay(2, 1)][..], &[Cut::ToRelay(1, 1)], &[Cut::FromRelay(1, 1)]] {
        let mut net = Net::with_members(13, 2, 2);
        net.run_for(Duration::from_secs(20));
        net.cuts.extend(cuts);
        let at = net.now;
        play(&mut net, Stream::OneWay, Duration::from_secs(3));
        let gap = longest_gap(&net, 2, at);
        assert!(gap <= Duration::from_secs(1), "{cuts:?}: {gap:?}");
    }
}

#[test]
fn idle_members_cost_little() {
    let mut net = Net::with_members(14, 2, 4);
    // Sessions are made anew once after two minutes, because LEASES used them.
    net.run_for(Duration::from_secs(200));
    let sent = net.client(1).counters().datagrams_sent;
    net.run_for(Duration::from_secs(100));
    let sent = net.client(1).counters().datagrams_sent - sent;
    assert!(sent <= 2 * 10 + 4, "{sent} datagrams in 100 s with two leases");
}

#[test]
fn copies_and_reordering_deliver_once() {
    let mut net = Net::with_members(15, 2, 2);
    let jitter = Duration::from_millis(60);
    net.link = Link { jitter, copies_permille: 300, ..Link::GOOD };
    play(&mut net, Stream::BothWays, Duration::from_secs(10));
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.delivered(2), 500, "{:?}", net.drops(2));
}

#[test]
fn loss_alone_moves_no_one_for_long() {
    let mut net = Net::with_members(16, 2, 2);
    net.link = Link { loss_permille: 20, ..Link::GOOD };
    play(&mut net, Stream::BothWays, Duration::from_secs(60));
    let share = net.delivered(2) as f64 / 3000.0;
    assert!(share > 0.94, "{share}");
    let dead = |event: &Event| matches!(event, Event::Lease { state: Some(LeaseState::Dead), .. });
    assert!(!net.nodes[&1].events.iter().any(|(_, event)| dead(event)));
}

#[test]
fn a_relay_that_goes_on_after_a_pause_delivers_nothing_twice() {
    let mut net = Net::with_members(17, 2, 2);
    play(&mut net, Stream::BothWays, Duration::from_secs(2));
    net.freeze(1);
    play(&mut net, Stream::BothWays, Duration::from_secs(3));
    net.thaw(1);
    play(&mut net, Stream::BothWays, Duration::from_secs(3));
    net.run_for(Duration::from_millis(100));
    assert_eq!(net.paths(1, 2), [RelayId(1)]);
    assert_eq!(net.delivered(2), 400, "late ones come late, and once: {:?}", net.drops(2));
}

#[test]
fn a_lossy_link_fails_over_as_well() {
    let mut in_time = 0;
    for seed in 0..40 {
        let mut net = Net::with_members(seed, 2, 2);
        net.link = Link { loss_permille: 50, ..Link::GOOD };
        play(&mut net, Stream::OneWay, Duration::from_secs(3));
        let at = net.now;
        net.cuts.insert(Cut::FromRelay(2, 1));
        play(&mut net, Stream::OneWay, Duration::from_secs(3));
        in_time += u32::from(longest_gap(&net, 2, at) <= Duration::from_secs(1));
    }
    assert_eq!(in_time, 40, "of 40 at 5 % loss each way");
}
