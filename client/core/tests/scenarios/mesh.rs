//! Members whose networks reach no common relay play by two of them.

use std::time::{Duration, Instant};

use lanrage_proto::RelayId;
use lanrage_proto::datagram::first_byte;

use crate::net::{Cut, Net, SECRET};

const STEP: Duration = Duration::from_millis(20);
const PROMISED: Duration = Duration::from_secs(1);

fn play(net: &mut Net, payload: &[u8], time: Duration) {
    let end = net.now + time;
    while net.now < end {
        net.send_udp(1, 2, payload);
        net.send_udp(2, 1, payload);
        net.run_for(STEP);
    }
}

fn cut(net: &mut Net, member: u8, relay: u16) {
    net.cuts.extend([Cut::ToRelay(member, relay), Cut::FromRelay(member, relay)]);
}

fn heal(net: &mut Net, member: u8, relay: u16) {
    net.cuts.remove(&Cut::ToRelay(member, relay));
    net.cuts.remove(&Cut::FromRelay(member, relay));
}

fn longest_gap(net: &Net, from: Instant) -> Duration {
    let gap = |number: u8| {
        let times = net.nodes[&number].delivered.iter().map(|(at, _)| *at).filter(|at| *at >= from);
        let times: Vec<_> = std::iter::once(from).chain(times).chain([net.now]).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    };
    gap(1).max(gap(2))
}

/// Two members of whom each reaches one relay, another one than the other.
fn apart(seed: u64) -> Net {
    let mut net = Net::new(seed, 2);
    cut(&mut net, 1, 2);
    cut(&mut net, 2, 1);
    turn_on(&mut net);
    net
}

fn turn_on(net: &mut Net) {
    for number in [1, 2] {
        net.control.add(number, &SECRET);
    }
    for number in [1, 2] {
        net.turn_on(number);
    }
}

#[test]
fn members_without_a_common_relay_play_by_two() {
    let mut net = apart(30);
    net.send_udp(1, 2, b"first");
    let took = net.run_until(Duration::from_secs(3), |net| net.delivered(2) == 1);
    assert!(took.is_some_and(|took| took < PROMISED), "{took:?}");
    net.run_for(Duration::from_secs(2));
    let before = [net.delivered(1), net.delivered(2)];
    play(&mut net, b"position", Duration::from_secs(10));
    net.run_for(Duration::from_millis(200));
    assert_eq!([net.delivered(1) - before[0], net.delivered(2) - before[1]], [500, 500]);
    assert_eq!((net.crossings(1, 2), net.crossings(2, 1)), (vec![(1, 2)], vec![(2, 1)]));
}

#[test]
fn one_relay_is_preferred_when_it_comes_within_reach() {
    let mut net = apart(31);
    play(&mut net, b"position", Duration::from_secs(3));
    assert_eq!(net.crossings(1, 2), [(1, 2)]);
    heal(&mut net, 1, 2);
    let at = net.now;
    play(&mut net, b"position", Duration::from_secs(12));
    assert_eq!((net.crossings(1, 2), net.paths(1, 2)), (vec![], vec![RelayId(2)]));
    assert_eq!((net.crossings(2, 1), net.paths(2, 1)), (vec![], vec![RelayId(2)]));
    assert!(longest_gap(&net, at) < Duration::from_millis(100));
}

/// The only common relay becomes useless, in each way there is; each member has another one.
#[test]
fn play_moves_to_two_relays_within_1_s() {
    for (seed, killed) in [(32, true), (33, false), (34, true), (35, false)] {
        let mut net = Net::new(seed, 3);
        cut(&mut net, 1, 2);
        cut(&mut net, 2, 1);
        turn_on(&mut net);
        net.run_for(Duration::from_secs(6));
        play(&mut net, b"position", Duration::from_secs(3));
        assert_eq!((net.paths(1, 2), net.crossings(1, 2)), (vec![RelayId(3)], vec![]));
        let at = net.now;
        if killed {
            net.dead.insert(3);
        } else {
            cut(&mut net, 1, 3);
        }
        play(&mut net, b"position", Duration::from_secs(4));
        assert_eq!(net.crossings(1, 2)[0], (1, 2));
        let gap = longest_gap(&net, at);
        assert!(gap <= PROMISED, "seed {seed}: {gap:?}");
    }
}

/// Each member loses another one of two relays, at once.
#[test]
fn play_goes_on_when_each_loses_the_relay_that_the_other_keeps() {
    for seed in 36..40 {
        let mut net = Net::with_members(seed, 2, 2);
        play(&mut net, b"position", Duration::from_secs(3));
        let at = net.now;
        cut(&mut net, 1, 2);
        cut(&mut net, 2, 1);
        play(&mut net, b"position", Duration::from_secs(4));
        assert_eq!(net.crossings(1, 2)[0], (1, 2));
        let gap = longest_gap(&net, at);
        assert!(gap <= PROMISED, "seed {seed}: {gap:?}");
    }
}

/// A datagram is 16 bytes longer between relays; what fits there is found out for that path alone.
#[test]
fn long_packets_fit_between_relays_too() {
    let mut net = apart(41);
    play(&mut net, b"position", Duration::from_secs(3));
    net.is_tapped = true;
    let frames = |net: &mut Net, payload: usize| {
        net.client(1);
        let node = net.nodes.get_mut(&1).unwrap();
        node.sent.clear();
        net.send_udp(1, 2, &vec![7; payload]);
        let sent = &net.nodes[&1].sent;
        sent.iter().filter(|(_, bytes)| bytes[0] == first_byte::DATA && bytes[5] == 2).count()
    };
    net.run_for(Duration::from_millis(200));
    let before = net.delivered(2);
    assert_eq!(frames(&mut net, 1_408 - 28), 1, "the longest in one datagram");
    assert_eq!(frames(&mut net, 1_408 - 28 + 1), 2);
    net.run_for(Duration::from_millis(200));
    assert_eq!(net.delivered(2) - before, 2, "{:?}", net.drops(2));
    heal(&mut net, 1, 2);
    play(&mut net, b"position", Duration::from_secs(12));
    assert_eq!(frames(&mut net, 1_424 - 28), 1, "by one relay more fits");
}

/// A word of a relay that the other one has gone is believed for that path alone, and for a moment.
#[test]
fn a_member_that_is_not_where_it_said_is_called_on_everywhere() {
    let mut net = apart(42);
    play(&mut net, b"position", Duration::from_secs(2));
    net.restart_relay(2);
    let at = net.now;
    play(&mut net, b"position", Duration::from_secs(5));
    assert!(longest_gap(&net, at) <= Duration::from_secs(2), "{:?}", longest_gap(&net, at));
    assert_eq!(net.crossings(1, 2), [(1, 2)]);
}

#[test]
fn members_with_a_common_relay_send_nothing_by_two() {
    let mut net = Net::new(43, 2);
    net.is_tapped = true;
    turn_on(&mut net);
    net.run_for(Duration::from_secs(2));
    for node in net.nodes.values_mut() {
        node.sent.clear();
    }
    play(&mut net, b"position", Duration::from_secs(5));
    let crossing = |bytes: &[u8]| bytes[0] == first_byte::DATA && bytes[2..4] != [0, 0];
    let crossed =
        net.nodes.values().flat_map(|node| &node.sent).filter(|(_, bytes)| crossing(bytes));
    assert_eq!(crossed.count(), 0);
}
