//! What `status` says of members that packets do not reach.

use std::time::Duration;

use lanrage_client_core::Connection::{Connected, NoLease, Silent};

use crate::net::Net;
use crate::net::control::member;

/// A member that had switched to another party, or had shut down, was shown as connected until its
/// session expired, after 3 min.
#[test]
fn regression_member_that_goes_is_silent_at_once_and_connected_when_it_is_back() {
    let mut net = Net::with_members(1, 2, 3);
    // A RELEASE that overtakes the last word on its way makes the relay drop it.
    net.link.jitter = Duration::ZERO;
    net.act(2, |client, now| client.release(now));
    net.run_for(Duration::from_millis(100));
    assert_eq!(net.status(1, 2).connection, Silent);
    assert_eq!(net.status(3, 2).connection, Silent);
    assert_eq!(net.status(1, 3).connection, Connected);
    net.turn_on(2);
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.status(1, 2).connection, Connected);
    assert_eq!(net.status(2, 1).connection, Connected);
}

/// Control may be away, too: what the member last said counts, not that it was heard a moment ago.
#[test]
fn member_that_control_has_off_line_is_off_line_as_soon_as_it_says_so() {
    let mut net = Net::with_members(2, 2, 2);
    net.link.jitter = Duration::ZERO;
    net.control.members[1].online = false;
    let party = net.control.party(1);
    net.act(1, |client, now| client.handle_party(&party, now));
    assert!(net.status(1, 2).online, "its tunnel is in use");
    net.act(2, |client, now| client.release(now));
    net.run_for(Duration::from_millis(100));
    assert!(!net.status(1, 2).online);
}

#[test]
fn member_that_vanishes_is_silent_after_3_s_of_packets() {
    let mut net = Net::with_members(3, 2, 2);
    net.nodes.get_mut(&2).unwrap().is_on = false;
    for _ in 0..30 {
        net.send_udp(1, 2, b"anybody?");
        net.run_for(Duration::from_millis(100));
    }
    assert_eq!(net.status(1, 2).connection, Silent);
    net.run_for(Duration::from_secs(10));
    assert_eq!(net.status(1, 2).connection, Silent, "also when nobody asks any more");
    net.nodes.get_mut(&2).unwrap().is_on = true;
    net.send_udp(1, 2, b"there again?");
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.status(1, 2).connection, Connected);
}

#[test]
fn member_that_leaves_a_ping_unanswered_is_silent() {
    let mut net = Net::with_members(4, 2, 2);
    net.nodes.get_mut(&2).unwrap().is_on = false;
    net.act(1, |client, now| client.ping(member(2), now)).unwrap();
    net.run_for(Duration::from_millis(4900));
    assert_eq!(net.status(1, 2).connection, Connected);
    net.run_for(Duration::from_millis(200));
    assert_eq!(net.status(1, 2).connection, Silent);
}

/// With every relay dead, each member was shown as connected by one of them.
#[test]
fn regression_nobody_is_connected_while_no_relay_works() {
    let mut net = Net::with_members(5, 2, 2);
    net.dead.extend([1, 2]);
    net.run_for(Duration::from_secs(12));
    assert_eq!(net.status(1, 2).connection, NoLease);
    net.dead.clear();
    net.run_for(Duration::from_secs(3));
    assert_eq!(net.status(1, 2).connection, Connected);
}
