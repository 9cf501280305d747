//! Whatever comes in: counted, never believed, never a panic, never unbounded memory.

use std::net::SocketAddr;
use std::time::Duration;

use lanrage_client_core::DropReason;
use lanrage_proto::datagram::first_byte;
use lanrage_proto::frame::data::{Delivered, HEADER_LEN, Sent};
use lanrage_proto::frame::hint::{Hint, HintKind};
use lanrage_proto::{Destination, Handle, RelayId, Tag};
use proptest::prelude::*;

use crate::net::Net;
use crate::net::control::member;

fn play(net: &mut Net, pairs: &[(u8, u8)]) {
    for _ in 0..25 {
        for (from, to) in pairs {
            net.send_udp(*from, *to, b"position");
        }
        net.run_for(Duration::from_millis(40));
    }
}

fn inject(net: &mut Net, number: u8, source: SocketAddr, datagram: &[u8]) {
    net.act(number, |client, now| client.handle_datagram(source, datagram, now));
}

fn dropped(net: &mut Net, number: u8, reason: DropReason) -> u64 {
    net.client(number).counters().dropped(reason)
}

#[test]
fn a_relay_that_misdelivers_gains_nothing() {
    let mut net = Net::with_members(1, 2, 3);
    net.is_tapped = true;
    play(&mut net, &[(1, 3), (3, 1)]);
    let frames: Vec<_> = net.nodes[&3]
        .received
        .iter()
        .filter(|(_, bytes)| {
            Delivered::decode(bytes).is_ok_and(|(frame, _)| frame.source == member(1))
        })
        .cloned()
        .collect();
    assert!(frames.len() >= 25);
    let delivered = net.delivered(2);
    for (source, frame) in &frames {
        inject(&mut net, 2, *source, frame);
    }
    assert_eq!(dropped(&mut net, 2, DropReason::NotForUs), frames.len() as u64);

    // The relay rewrites the destination too, then the source.
    let not_ours = [DropReason::UnknownIndex, DropReason::NotAuthentic];
    let sum = |net: &mut Net| not_ours.map(|reason| dropped(net, 2, reason)).iter().sum::<u64>();
    let before = sum(&mut net);
    for (source, frame) in &frames {
        for pretended in [1, 3] {
            let delivered = Delivered {
                egress: RelayId(0),
                destination: Destination::One(member(2)),
                source: member(pretended),
                ingress: RelayId(1),
            };
            let forged = [&delivered.encode()[..], &frame[HEADER_LEN..]].concat();
            inject(&mut net, 2, *source, &forged);
        }
    }
    assert_eq!(sum(&mut net) - before, 2 * frames.len() as u64);
    assert_eq!(net.delivered(2), delivered, "nothing reached the NIC");

    for (source, frame) in &frames {
        inject(&mut net, 3, *source, frame);
    }
    assert!(dropped(&mut net, 3, DropReason::Duplicate) >= 25, "replays");
    let stranger = SocketAddr::from(([192, 0, 2, 1], 51820));
    inject(&mut net, 3, stranger, &frames[0].1);
    assert_eq!(dropped(&mut net, 3, DropReason::UnknownSource), 1);
}

/// Handle and tag of a member's lease at relay 1.
fn lease_of(net: &mut Net, number: u8) -> (SocketAddr, Handle, Tag) {
    let relay = net.relays[&1].address;
    let (_, frame) = net.nodes[&number]
        .sent
        .iter()
        .rfind(|(to, bytes)| *to == relay && bytes[0] == first_byte::DATA)
        .unwrap();
    let header = Sent::decode(frame.first_chunk().unwrap());
    (relay, header.handle, header.tag)
}

#[test]
fn hints_are_checked_and_cost_nothing_but_a_question() {
    let mut net = Net::with_members(2, 2, 2);
    net.is_tapped = true;
    play(&mut net, &[(1, 2), (2, 1)]);
    let (relay, handle, tag) = lease_of(&mut net, 1);
    let kinds = [HintKind::NoLease, HintKind::NoPeer(member(2))];
    for kind in kinds {
        let hint = Hint { kind, handle, tag: Tag(tag.0 ^ 1) };
        inject(&mut net, 1, relay, hint.encode(&mut [0; Hint::LEN_MAX]));
    }
    assert_eq!(dropped(&mut net, 1, DropReason::Hint), 2);
    let before = net.delivered(2);
    for _ in 0..25 {
        for _ in 0..10 {
            let hint = Hint { kind: HintKind::NoLease, handle, tag };
            inject(&mut net, 1, relay, hint.encode(&mut [0; Hint::LEN_MAX]));
        }
        net.send_udp(1, 2, b"position");
        net.run_for(Duration::from_millis(40));
    }
    net.run_for(Duration::from_millis(100));
    assert_eq!(net.delivered(2), before + 25, "play goes on");
    assert!(dropped(&mut net, 1, DropReason::Hint) > 240, "acted on once a second");
    assert_eq!(lease_of(&mut net, 1).1, handle, "the lease is the same");
}

#[test]
fn a_member_without_a_lease_at_the_relay_is_reached_by_the_next() {
    let mut net = Net::with_members(3, 2, 2);
    net.is_tapped = true;
    play(&mut net, &[(1, 2), (2, 1)]);
    let (relay, handle, tag) = lease_of(&mut net, 1);
    let hint = Hint { kind: HintKind::NoPeer(member(2)), handle, tag };
    inject(&mut net, 1, relay, hint.encode(&mut [0; Hint::LEN_MAX]));
    assert_eq!(net.paths(1, 2), [RelayId(2)]);
    net.run_for(Duration::from_secs(2));
    assert_eq!(net.paths(1, 2), [RelayId(1)]);
}

#[test]
fn a_member_sends_in_its_own_name_only() {
    let mut net = Net::with_members(4, 2, 3);
    // What crosses the tunnel of member 1 is sealed by its own client, which filters; the receiver
    // filters again. Member 1 takes member 3's place in the addresses here.
    let mut config = net.config(1);
    let networks = net.client(1).networks();
    config.party.subnet = "10.66.9.0".parse().unwrap();
    net.turn_on_with(1, config);
    net.run_for(Duration::from_secs(2));
    let (from, to) = ("10.66.9.1".parse().unwrap(), "10.66.9.2".parse().unwrap());
    let mut packet = crate::net::packets::udp(from, to, (1, 1), b"x");
    assert_ne!(networks.subnet, net.client(1).networks().subnet);
    net.act(1, |client, now| client.handle_nic_packet(&mut packet, now));
    let before = net.delivered(2);
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.delivered(2), before);
    assert!(dropped(&mut net, 2, DropReason::ForeignAddress) > 0, "{:?}", net.drops(2));
    assert!(dropped(&mut net, 2, DropReason::InnerMalformed) > 0, "messages too");
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let firsts = prop_oneof![first_byte::HELLO..=first_byte::RESUMED, any::<u8>()];
    (firsts, proptest::collection::vec(any::<u8>(), 0..400)).prop_map(|(first, mut bytes)| {
        bytes.insert(0, first);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_datagram_and_no_packet_does_harm(
        frames in proptest::collection::vec(frames(), 1..200),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u8..), 1..200),
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1600), 1..50),
    ) {
        let mut net = Net::with_members(5, 2, 2);
        net.is_tapped = true;
        net.turn_on(2);
        play(&mut net, &[(1, 2), (2, 1)]);
        let real = net.nodes[&2].received.clone();
        let relay = net.relays[&1].address;
        for bytes in &frames {
            inject(&mut net, 2, relay, bytes);
        }
        for (frame, at, flip) in &flips {
            let (source, mut bytes) = frame.get(&real).clone();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            inject(&mut net, 2, source, &bytes);
            bytes.truncate(at);
            inject(&mut net, 2, source, &bytes);
        }
        for packet in &packets {
            let mut packet = packet.clone();
            net.act(2, |client, now| client.handle_nic_packet(&mut packet, now));
        }
        net.run_for(Duration::from_secs(1));
        let before = net.delivered(2);
        play(&mut net, &[(1, 2)]);
        net.run_for(Duration::from_millis(200));
        prop_assert_eq!(net.delivered(2), before + 25);
    }
}
