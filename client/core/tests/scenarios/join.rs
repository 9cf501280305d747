use std::time::Duration;

use lanrage_client_core::{Connection, DropReason, Event};
use lanrage_proto::RelayId;
use lanrage_proto::api::Change;

use crate::net::control::{SESSION, member};
use crate::net::{Link, Net, SECRET};

#[test]
fn members_find_each_other_and_packets_cross() {
    let mut net = Net::with_members(1, 2, 3);
    for (from, to) in [(1, 2), (2, 1), (3, 1), (2, 3)] {
        assert_eq!(net.status(from, to).connection, Connection::Connected, "{from} to {to}");
        let before = net.delivered(to);
        net.send_udp(from, to, b"hello");
        net.run_for(Duration::from_millis(100));
        assert_eq!(
            net.delivered(to),
            before + 1,
            "{from} to {to}: {:?} {:?}",
            net.drops(from),
            net.drops(to)
        );
    }
    assert_eq!(net.paths(1, 2), [RelayId(1)]);
}

/// The UDP part of joining: from the ticket in hand to the first of a host's pings answered.
fn time_to_ping(seed: u64) -> Option<Duration> {
    let mut net = Net::with_members(seed, 2, 2);
    let record = net.control.add(3, &SECRET);
    let latency = Duration::from_millis(20);
    net.link = Link { loss_permille: 200, loss_of: 3, latency, ..Link::GOOD };
    let start = net.now;
    net.turn_on(3);
    for round in 0..25 {
        net.act(3, |client, now| client.ping(member(1), now)).unwrap();
        let answer = |net: &mut Net| {
            net.nodes[&3].events.iter().find_map(|(at, event)| match event {
                Event::Pong { answer: Some(_), .. } => Some(*at),
                _ => None,
            })
        };
        if round == 1 {
            // The others learn of the newcomer from control a little later.
            for number in [1, 2] {
                let change = Change::Member { session: SESSION, member: record.clone() };
                net.act(number, |client, now| client.handle_change(&change, now));
            }
        }
        if net.run_until(Duration::from_millis(200), |net| answer(net).is_some()).is_some() {
            return answer(&mut net).map(|at| at - start);
        }
    }
    None
}

#[test]
fn a_newcomer_is_answered_within_2_s_at_20_percent_loss() {
    let times: Vec<_> = (0..100).map(time_to_ping).collect();
    let in_time = times.iter().flatten().filter(|took| **took <= Duration::from_secs(2)).count();
    let mut sorted: Vec<_> = times.iter().flatten().collect();
    sorted.sort();
    println!(
        "in time: {in_time} of 100, median {:?}, slowest {:?}",
        sorted[sorted.len() / 2],
        sorted.last()
    );
    assert!(in_time >= 95, "{in_time} of 100");
}

#[test]
fn a_member_whose_clock_went_back_is_called() {
    let mut net = Net::with_members(2, 2, 2);
    net.run_for(Duration::from_secs(60));
    net.turn_on(2);
    net.run_for(Duration::from_secs(1));
    net.set_back(Duration::from_secs(30));
    net.turn_on(2);
    net.run_for(Duration::from_secs(1));
    assert!(net.client(1).counters().dropped(DropReason::Stale) > 0);
    assert_eq!(net.status(2, 1).connection, Connection::Connected);
}
