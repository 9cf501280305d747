use std::time::Duration;

use lanrage_client_core::{Event, PingError};
use lanrage_proto::api::Change;
use lanrage_proto::frame::bind::Refusal;
use lanrage_proto::inner::LeaseState;

use crate::net::control::{SESSION, UNIX_TIME, member};
use crate::net::{Net, SECRET};

fn refusals(net: &Net, number: u8) -> Vec<(Refusal, i64)> {
    let events = net.nodes[&number].events.iter();
    events
        .filter_map(|(_, event)| match event {
            Event::Refused { reason, clock_skew_s, .. } => Some((*reason, *clock_skew_s)),
            _ => None,
        })
        .collect()
}

fn all_alive(net: &mut Net, number: u8) -> bool {
    let leases = net.client(number).leases();
    leases.len() == 2 && leases.iter().all(|lease| lease.state == Some(LeaseState::Alive))
}

#[test]
fn leases_are_renewed_in_place_for_hours() {
    let mut net = Net::with_members(1, 2, 2);
    let refused = refusals(&net, 1).len();
    for _ in 0..8 {
        net.run_for(Duration::from_secs(1800));
        assert!(all_alive(&mut net, 1), "{:?}", net.client(1).leases());
        let not_before = net.unix_time();
        for number in [1, 2] {
            let grant = net.control.ticket(number, not_before);
            net.act(number, |client, now| client.handle_ticket(grant, now));
        }
    }
    assert_eq!(refusals(&net, 1).len(), refused);
    assert_eq!(net.client(1).counters().binds, 2 + 2 * 7, "one a relay and ticket");
    let before = net.delivered(2);
    net.send_udp(1, 2, b"hello");
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.delivered(2), before + 1);
}

/// The client waited for counters above those of the former keys: after a renewal it took no
/// challenge from the relay, and a lease whose address changed came back only by a new attempt.
#[test]
fn regression_a_renewed_lease_is_rebound_at_once() {
    let mut net = Net::with_members(8, 1, 2);
    let rebind = |net: &mut Net| {
        net.change_port(1);
        net.act(1, |client, now| client.handle_network_change(now));
        let address = net.nodes[&1].address;
        // Two round trips of 20 ms; the next REBIND would be sent after 100 ms.
        net.run_until(Duration::from_millis(90), |net| {
            net.client(1).leases()[0].reflexive == Some(address)
        })
    };
    for _ in 0..3 {
        assert!(rebind(&mut net).is_some(), "{:?}", net.drops(1));
        net.run_for(Duration::from_secs(1));
    }
    let grant = net.control.ticket(1, net.unix_time());
    net.act(1, |client, now| client.handle_ticket(grant, now));
    let binds = net.client(1).counters().binds;
    net.run_for(Duration::from_secs(3));
    assert_eq!(net.client(1).counters().binds, binds + 1, "renewed");
    assert!(rebind(&mut net).is_some(), "{:?}", net.drops(1));
}

#[test]
fn an_expired_ticket_is_replaced() {
    let mut net = Net::with_members(2, 2, 2);
    net.run_for(Duration::from_secs(3700));
    assert!(refusals(&net, 1).iter().any(|(reason, _)| *reason == Refusal::Expired));
    let wanted = |(_, event): &(_, Event)| *event == Event::TicketWanted;
    assert!(net.nodes[&1].events.iter().any(wanted));
    let grant = net.control.ticket(1, net.unix_time());
    net.act(1, |client, now| client.handle_ticket(grant, now));
    // Leases in hand are renewed within 2 s.
    net.run_for(Duration::from_secs(3));
    assert!(all_alive(&mut net, 1));
}

#[test]
fn a_ticket_from_the_future_shows_whose_clock_is_off() {
    let mut net = Net::new(3, 2);
    net.control.add(1, &SECRET);
    let mut config = net.config(1);
    config.ticket = Some(net.control.ticket(1, UNIX_TIME + 500));
    config.unix_time = UNIX_TIME + 500;
    net.turn_on_with(1, config);
    net.run_for(Duration::from_secs(1));
    assert!(refusals(&net, 1).contains(&(Refusal::NotYetValid, -500)), "{:?}", refusals(&net, 1));
}

#[test]
fn a_second_instance_of_the_device_is_shown() {
    let mut net = Net::new(4, 1);
    net.control.add(1, &SECRET);
    for _ in 0..6 {
        net.turn_on(1);
        net.run_for(Duration::from_secs(2));
    }
    assert!(refusals(&net, 1).iter().any(|(reason, _)| *reason == Refusal::Duplicate));
    assert_eq!(net.client(1).leases()[0].refusal, Some(Refusal::Duplicate));
}

#[test]
fn a_released_lease_is_gone_at_the_relay() {
    let mut net = Net::with_members(5, 2, 2);
    net.act(2, |client, now| client.release(now));
    net.run_for(Duration::from_millis(100));
    net.nodes.get_mut(&2).unwrap().is_on = false;
    net.turn_on(2);
    net.run_for(Duration::from_secs(1));
    assert!(all_alive(&mut net, 2));
    assert!(refusals(&net, 2).is_empty());
}

#[test]
fn a_call_that_comes_before_the_news_of_its_caller_is_kept() {
    let mut net = Net::with_members(6, 2, 1);
    let record = net.control.add(2, &SECRET);
    net.turn_on(2);
    net.act(2, |client, now| client.ping(member(1), now)).unwrap();
    // The initiations at 0 and 250, 500 ms have been sent; the next one follows at 1 s.
    net.run_for(Duration::from_millis(700));
    let calls = net.client(2).counters().initiations;
    let change = Change::Member { session: SESSION, member: record };
    net.act(1, |client, now| client.handle_change(&change, now));
    net.run_for(Duration::from_millis(150));
    let pong = |(_, event): &(_, Event)| matches!(event, Event::Pong { answer: Some(_), .. });
    assert!(net.nodes[&2].events.iter().any(pong), "{:?}", net.drops(1));
    assert_eq!(net.client(2).counters().initiations, calls);
}

#[test]
fn a_ping_says_when_there_is_no_answer() {
    let mut net = Net::with_members(7, 2, 2);
    net.nodes.get_mut(&2).unwrap().is_on = false;
    let id = net.act(1, |client, now| client.ping(member(2), now)).unwrap();
    net.run_for(Duration::from_secs(6));
    let lost = Event::Pong { id, member: member(2), answer: None };
    assert!(net.nodes[&1].events.iter().any(|(_, event)| *event == lost));
    let nobody = net.act(1, |client, now| client.ping(member(3), now));
    assert_eq!(nobody, Err(PingError::NoSuchMember(member(3))));
}
