use std::net::IpAddr;
use std::time::Duration;

use lanrage_client_core::DropReason;

use crate::net::control::member;
use crate::net::packets::{icmpv6, mss_of, tcp_syn, udp};
use crate::net::{Link, Net, SECRET};

fn v4(net: &mut Net, number: u8) -> IpAddr {
    net.client(1).networks().ipv4(member(number)).into()
}

fn v6(net: &mut Net, number: u8) -> IpAddr {
    net.client(1).networks().ipv6(member(number)).into()
}

fn link_local(number: u8) -> IpAddr {
    lanrage_client_core::Networks::link_local(member(number)).into()
}

/// Gives member 1's NIC a packet; what member 2's NIC gets.
fn cross(net: &mut Net, mut packet: Vec<u8>) -> Option<Vec<u8>> {
    let before = net.delivered(2);
    net.act(1, |client, now| client.handle_nic_packet(&mut packet, now));
    net.run_for(Duration::from_millis(200));
    net.nodes[&2].delivered.get(before).map(|(_, packet)| packet.clone())
}

#[test]
fn all_sizes_cross_unchanged_over_all_three_addresses() {
    let mut net = Net::with_members(1, 2, 2);
    let pairs = [
        (v4(&mut net, 1), v4(&mut net, 2)),
        (v6(&mut net, 1), v6(&mut net, 2)),
        (link_local(1), link_local(2)),
    ];
    for (from, to) in pairs {
        let headers = if from.is_ipv4() { 28 } else { 48 };
        for length in [0, 1, 1300, 1424 - headers, 1425 - headers, 1500 - headers] {
            let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let packet = udp(from, to, (9, 9), &payload);
            assert_eq!(cross(&mut net, packet.clone()), Some(packet), "{length} bytes {from}");
        }
    }
    let mut padded = udp(v4(&mut net, 1), v4(&mut net, 2), (9, 9), b"x");
    let whole = padded.clone();
    padded.extend([0; 18]);
    assert_eq!(cross(&mut net, padded), Some(whole), "Ethernet's padding stays behind");
}

#[test]
fn what_may_not_cross_is_counted() {
    let mut net = Net::with_members(2, 2, 3);
    let [us, them, other] = [1, 2, 3].map(|number| v4(&mut net, number));
    let [us6, them6] = [1, 2].map(|number| v6(&mut net, number));
    let answer = |name: &[u8]| [&[0, 1, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0][..], name].concat();
    let query = |name: &[u8]| [&[0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], name].concat();
    let mut redirect = udp(us, them, (1, 1), &[0; 32]);
    redirect[9] = 1;
    redirect[20] = 5;
    let sum = checksum(&redirect[..20]);
    redirect[10..12].copy_from_slice(&sum.to_be_bytes());
    let nowhere: IpAddr = "10.66.3.77".parse().unwrap();
    let broadcast: IpAddr = "10.66.3.255".parse().unwrap();
    let group: IpAddr = "ff02::fb".parse().unwrap();
    let cases = [
        (vec![], DropReason::NotIp),
        (vec![0x45; 19], DropReason::NotIp),
        (udp(us, them, (1, 1), &[0; 1473]), DropReason::TooLong),
        (udp(other, them, (1, 1), b"x"), DropReason::ForeignSource),
        (udp(us, nowhere, (1, 1), b"x"), DropReason::NoSuchMember),
        (udp(us, us, (1, 1), b"x"), DropReason::NoSuchMember),
        (udp(us, broadcast, (1, 1), b"x"), DropReason::GroupTraffic),
        (udp(us6, group, (5353, 5353), b"x"), DropReason::GroupTraffic),
        (icmpv6(us6, them6, 133), DropReason::Discovery),
        (icmpv6(us6, them6, 134), DropReason::Discovery),
        (icmpv6(us6, them6, 136), DropReason::Discovery),
        (icmpv6(us6, them6, 137), DropReason::Discovery),
        (redirect, DropReason::Discovery),
        (udp(us, them, (68, 67), b"x"), DropReason::Dhcp),
        (udp(us6, them6, (547, 546), b"x"), DropReason::Dhcp),
        (udp(us, them, (5355, 40000), &answer(b"\x04host\x00")), DropReason::NameAnswer),
        (udp(us, them, (5353, 5353), &answer(b"\x04WPAD\x05local\x00")), DropReason::NameAnswer),
        (udp(us, them, (137, 137), &answer(b" FHFAEBEECACACA")), DropReason::NameAnswer),
    ];
    for (packet, reason) in cases {
        let before = net.client(1).counters().dropped(reason);
        assert_eq!(cross(&mut net, packet), None, "{reason:?}");
        assert_eq!(net.client(1).counters().dropped(reason), before + 1, "{reason:?}");
    }
    for packet in [
        icmpv6(us6, them6, 128),
        udp(us, them, (5353, 5353), &answer(b"\x04game\x05local\x00")),
        udp(us, them, (5353, 5353), &query(b"\x04wpad\x05local\x00")),
        udp(us, them, (40000, 5355), &query(b"\x04host\x00")),
    ] {
        assert!(cross(&mut net, packet).is_some());
    }
}

fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).enumerate().filter(|(at, _)| *at != 5);
    let sum: u32 = words.map(|(_, w)| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[test]
fn tcp_is_told_what_fits_one_datagram() {
    let mut net = Net::with_members(3, 2, 2);
    let pairs =
        [(v4(&mut net, 1), v4(&mut net, 2), 1384), (v6(&mut net, 1), v6(&mut net, 2), 1364)];
    for (from, to, fits) in pairs {
        for (asked, carried) in [(1460, fits), (536, 536), (fits, fits), (fits + 1, fits)] {
            let syn = cross(&mut net, tcp_syn(from, to, asked)).unwrap();
            assert_eq!(mss_of(&syn), (carried, true), "{from} {asked}");
        }
    }
}

/// TCP's bulk and every packet above 1,184 bytes vanished where the underlay's MTU was below 1,488:
/// nothing looked whether a long datagram arrives.
#[test]
fn regression_packets_of_all_lengths_cross_an_underlay_that_turns_narrow() {
    const NARROW: usize = 1280 - 40 - 8;
    let mut net = Net::new(5, 2);
    net.link.datagram_len_max = NARROW;
    for number in [1, 2] {
        net.control.add(number, &SECRET);
    }
    for number in [1, 2] {
        net.turn_on(number);
    }
    net.run_for(Duration::from_secs(3));
    let (from, to) = (v4(&mut net, 1), v4(&mut net, 2));
    let packet = |length: usize| udp(from, to, (9, 9), &vec![7; length - 28]);
    let all_cross = |net: &mut Net| {
        for length in [28, 1184, 1185, 1392, 1500] {
            assert_eq!(cross(net, packet(length)), Some(packet(length)), "{length}");
        }
    };
    let told = |net: &mut Net| mss_of(&cross(net, tcp_syn(from, to, 1460)).unwrap()).0;
    all_cross(&mut net);
    assert_eq!(told(&mut net), 1184 - 40);

    let play = |net: &mut Net, seconds| {
        for _ in 0..10 * seconds {
            cross(net, packet(1300));
        }
    };
    net.link.datagram_len_max = Link::GOOD.datagram_len_max;
    play(&mut net, 20);
    assert_eq!(told(&mut net), 1424 - 40);
    all_cross(&mut net);
    net.link.datagram_len_max = NARROW;
    play(&mut net, 3);
    all_cross(&mut net);
}

#[test]
fn a_packet_waits_for_the_tunnel_and_no_longer_than_is_useful() {
    let mut net = Net::with_members(4, 2, 2);
    net.run_for(Duration::from_secs(400));
    let before = net.delivered(2);
    net.send_udp(1, 2, b"first");
    net.run_for(Duration::from_millis(200));
    assert_eq!(net.delivered(2), before + 1, "the session had expired: {:?}", net.drops(1));

    net.nodes.get_mut(&2).unwrap().is_on = false;
    net.run_for(Duration::from_secs(400));
    for _ in 0..1000 {
        net.send_udp(1, 2, &[0; 1000]);
    }
    net.run_for(Duration::from_secs(10));
    let counters = net.client(1).counters();
    let waited = counters.dropped(DropReason::QueueTimeout);
    assert_eq!(counters.dropped(DropReason::QueueFull) + waited, 1000);
    assert!((60..=64).contains(&waited), "{waited}");
}
