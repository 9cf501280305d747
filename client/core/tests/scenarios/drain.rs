//! A relay that is about to stop is left without a packet lost.

use std::time::Duration;

use lanrage_client_core::Event;
use lanrage_proto::RelayId;

use crate::net::{Link, Net};

const STEP: Duration = Duration::from_millis(20);

/// Packets each way, one every 20 ms; gives how many were sent each way.
fn play(net: &mut Net, time: Duration) -> usize {
    let end = net.now + time;
    let mut sent = 0;
    while net.now < end {
        net.send_udp(1, 2, b"position");
        net.send_udp(2, 1, b"position");
        sent += 1;
        net.run_for(STEP);
    }
    // What is under way arrives.
    net.run_for(Duration::from_secs(1));
    sent
}

fn leases_at(net: &mut Net, relay: u16) -> usize {
    net.relays.get_mut(&relay).unwrap().binder().counts().active
}

fn drain(net: &mut Net, relay: u16, within: Duration) {
    let now = net.relay_now();
    let within_ms = within.as_millis() as u64;
    net.relays.get_mut(&relay).unwrap().binder().drain(now, within_ms, None);
}

#[test]
fn a_drained_relay_is_left_and_found_again_and_nothing_is_lost() {
    for (seed, latency_ms, loss_permille) in [(1, 5, 0), (2, 40, 0), (3, 60, 200)] {
        let mut net = Net::with_members(seed, 2, 2);
        net.link = Link { latency: Duration::from_millis(latency_ms), ..Link::GOOD };
        play(&mut net, Duration::from_secs(3));
        let before = (net.delivered(1), net.delivered(2));
        assert_eq!(net.paths(1, 2), [RelayId(1)]);

        // Packets are counted where the link itself loses none.
        net.link.loss_permille = loss_permille;
        drain(&mut net, 1, Duration::from_secs(60));
        // A RELEASE that is lost costs half a minute more: the lease ends idle.
        let sent = play(&mut net, Duration::from_secs(45));
        net.link.loss_permille = 0;
        assert_eq!(leases_at(&mut net, 1), 0, "seed {seed}: long before the deadline");
        assert_eq!(net.paths(1, 2), [RelayId(2)]);
        if loss_permille == 0 {
            let after = (net.delivered(1) - before.0, net.delivered(2) - before.1);
            assert_eq!(after, (sent, sent), "seed {seed}: nothing lost, nothing twice");
        }
        let told = Event::Moving { relay: RelayId(1), next: Some(RelayId(2)) };
        assert!(net.nodes[&1].events.iter().any(|(_, event)| *event == told));

        net.relays.get_mut(&1).unwrap().binder().undrain();
        let before = net.delivered(2);
        let sent = play(&mut net, Duration::from_secs(45));
        assert_eq!(leases_at(&mut net, 1), 2, "seed {seed}: back within half a minute");
        assert_eq!(net.paths(1, 2), [RelayId(1)]);
        assert_eq!(net.delivered(2) - before, sent, "seed {seed}");
    }
}

#[test]
fn the_only_relay_is_used_until_it_stops() {
    let mut net = Net::with_members(4, 1, 2);
    play(&mut net, Duration::from_secs(2));
    drain(&mut net, 1, Duration::from_secs(20));
    let before = net.delivered(2);
    let sent = play(&mut net, Duration::from_secs(15));
    assert_eq!(net.delivered(2) - before, sent);
    assert_eq!(leases_at(&mut net, 1), 2);
}
