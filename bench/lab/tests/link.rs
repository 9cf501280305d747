//! Links do what their impairment says, told by ping, iperf3 and real sockets.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

use std::{
    net::{Ipv4Addr, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use lanrage_lab::{
    Direction, Error, Host, Impairment, Lab, LinkSpec, NatKind, Process, Traffic,
    packets_containing,
};

const PATIENCE: Duration = Duration::from_secs(5);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Two hosts on the backbone, the first by `spec`, the second by a veth.
fn pair(spec: LinkSpec) -> (Lab, Host, Host) {
    let lab = Lab::new().unwrap();
    let a = lab.host("a", spec).unwrap();
    let b = lab.host("b", LinkSpec::direct()).unwrap();
    (lab, a, b)
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Round trips in milliseconds, after one that resolves the neighbours.
fn round_trips(from: &Host, to: Ipv4Addr, count: u32) -> Vec<f64> {
    let to = to.to_string();
    output(from.command("ping").args(["-c1", "-W2", &to]));
    let count = count.to_string();
    let args = ["-c", &count, "-i", "0.02", "-W2", to.as_str()];
    output(from.command("ping").args(args))
        .lines()
        .filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok())
        .collect()
}

fn iperf_server(host: &Host) -> Process {
    let mut command = host.command("iperf3");
    command.args(["-s", "--forceflush"]);
    let mut server = host.spawn("iperf3", command).unwrap();
    server.wait_for_log("listening", PATIENCE).unwrap();
    server
}

/// Receiver's Mbit/s of each stream that iperf3 sums up; amounts are in MBytes or GBytes.
fn iperf(from: &Host, to: &Host, args: &[&str]) -> Vec<f64> {
    let mut client = from.command("iperf3");
    client.args(["-c", &to.v4().to_string(), "-f", "m"]).args(args);
    let report = output(&mut client);
    let rates: Vec<f64> = report
        .lines()
        .filter(|line| line.ends_with("receiver"))
        .filter_map(|line| line.split("Bytes").nth(1)?.split_whitespace().next()?.parse().ok())
        .collect();
    assert!(!rates.is_empty(), "iperf3 reports: {report}");
    rates
}

#[test]
fn ping_sees_the_delay_and_little_more() {
    let delayed = Impairment { delay: ms(20), ..Impairment::NONE };
    let (_lab, a, b) = pair(LinkSpec::shaped(delayed));
    let mut trips = round_trips(&a, b.v4(), 50);
    assert_eq!(trips.len(), 50);
    trips.sort_by(f64::total_cmp);
    println!("round trips: min {} median {} max {} ms", trips[0], trips[25], trips[49]);
    assert!(trips[0] >= 40.0);
    assert!(trips[25] < 41.0, "median {} ms", trips[25]);
}

#[test]
fn jitter_spreads_round_trips() {
    let jittery = Impairment { delay: ms(20), jitter: ms(5), ..Impairment::NONE };
    let (_lab, a, b) = pair(LinkSpec::asymmetric(jittery, Impairment::NONE));
    let mut trips = round_trips(&a, b.v4(), 50);
    trips.sort_by(f64::total_cmp);
    assert!(trips[0] >= 15.0 && trips[0] < 20.0, "{} ms", trips[0]);
    assert!(trips[49] > 20.0 && trips[45] < 26.0, "{} ms", trips[49]);
}

#[test]
fn loss_can_be_set_and_taken_away_while_traffic_flows() {
    let (_lab, a, b) = pair(LinkSpec::shaped(Impairment::NONE));
    let sender = a.enter(|| UdpSocket::bind((a.v4(), 0))).unwrap().unwrap();
    let receiver = b.enter(|| UdpSocket::bind((b.v4(), 9))).unwrap().unwrap();
    receiver.set_read_timeout(Some(ms(300))).unwrap();
    let arrived = |count: u32| {
        for _ in 0..count {
            sender.send_to(b"x", (b.v4(), 9)).unwrap();
            std::thread::sleep(Duration::from_micros(100));
        }
        std::iter::from_fn(|| receiver.recv(&mut [0; 8]).ok()).count()
    };
    let before = a.link().counters(Direction::Up).unwrap();
    assert_eq!(arrived(100), 100);
    let after = a.link().counters(Direction::Up).unwrap();
    assert_eq!(after.received_udp_frames - before.received_udp_frames, 100);

    let lossy = Impairment { loss: 0.2, ..Impairment::NONE };
    a.link().set(Direction::Up, lossy).unwrap();
    // A hundred at a time fit the receiver's buffer.
    let kept: usize = (0..10).map(|_| arrived(100)).sum();
    // Five standard deviations of a binomial with n = 1,000 and p = 0.8 are 63.
    assert!((737..=863).contains(&kept), "{kept} of 1,000 arrived");

    a.link().set(Direction::Up, Impairment::CUT).unwrap();
    assert_eq!(arrived(20), 0);
    a.link().set(Direction::Up, Impairment::NONE).unwrap();
    assert_eq!(arrived(100), 100);
    let counters = a.link().counters(Direction::Up).unwrap();
    assert_eq!(counters.received_frames, counters.delivered_frames + counters.lost_frames);
}

#[test]
fn a_veth_says_that_it_cannot_be_set() {
    let (_lab, a, _b) = pair(LinkSpec::direct());
    let refused = a.link().set(Direction::Up, Impairment::CUT);
    assert!(matches!(refused, Err(Error::DirectLink)));
    assert!(matches!(a.link().counters(Direction::Up), Err(Error::DirectLink)));
}

#[test]
fn tcp_gets_the_rate_of_the_line() {
    let line = Impairment { delay: ms(20), rate_bps: Some(50_000_000), ..Impairment::NONE };
    let (_lab, a, b) = pair(LinkSpec::shaped(line));
    let _server = iperf_server(&b);
    let rate = iperf(&a, &b, &["-t", "5"])[0];
    println!("TCP through 50 Mbit/s, 20 ms: {rate} Mbit/s");
    // 1,448 of 1,514 bytes of a frame are payload: at most 47.8; slow start costs some of it.
    assert!((35.0..=48.5).contains(&rate), "{rate} Mbit/s");
}

#[test]
fn two_links_in_the_path_carry_100_mbit_both_ways() {
    let lab = Lab::new().unwrap();
    let a = lab.host("a", LinkSpec::shaped(Impairment::NONE)).unwrap();
    let b = lab.host("b", LinkSpec::shaped(Impairment::NONE)).unwrap();
    let _server = iperf_server(&b);
    let rates = iperf(&a, &b, &["-t", "3", "--bidir"]);
    println!("TCP both ways through two unlimited links: {rates:?} Mbit/s");
    assert!(rates.iter().all(|rate| *rate > 100.0), "{rates:?} Mbit/s");
    let one_way = iperf(&a, &b, &["-t", "3"]);
    println!("TCP one way through two unlimited links: {one_way:?} Mbit/s");
}

#[test]
fn unlimited_link_rate() {
    let (_lab, a, b) = pair(LinkSpec::shaped(Impairment::NONE));
    let _server = iperf_server(&b);
    let rate = iperf(&a, &b, &["-t", "3"])[0];
    println!("TCP through one unlimited link: {rate} Mbit/s");
    assert!(rate > 200.0, "{rate} Mbit/s");
}

#[test]
fn mtu_is_what_was_asked() {
    for mtu in [1_500, 1_280, 1_124] {
        for spec in [LinkSpec::direct(), LinkSpec::shaped(Impairment::NONE)] {
            let (_lab, a, b) = pair(spec.mtu(mtu));
            let fits = |payload: u16| {
                let payload = payload.to_string();
                let to = b.v4().to_string();
                let args = ["-c1", "-W1", "-M", "do", "-s", payload.as_str(), to.as_str()];
                a.command("ping").args(args).output().unwrap().status.success()
            };
            // 20 bytes of IPv4 and 8 of ICMP.
            assert!(fits(mtu - 28), "{mtu} fits");
            assert!(!fits(mtu - 27), "{mtu} + 1 does not");
            assert_eq!(a.v6().is_some(), mtu >= 1_280);
        }
    }
}

#[test]
fn ipv6_works_at_once() {
    for spec in [LinkSpec::direct(), LinkSpec::shaped(Impairment::NONE)] {
        let (_lab, a, b) = pair(spec);
        let to = b.v6().unwrap().to_string();
        let ping = a.command("ping").args(["-c1", "-W1", &to]).output().unwrap();
        assert!(ping.status.success());
    }
}

#[test]
fn hosts_on_the_backbone_are_found_by_name() {
    let (_lab, a, b) = pair(LinkSpec::direct());
    let hosts = a.command("getent").args(["ahosts", b.name()]).output().unwrap();
    let hosts = String::from_utf8(hosts.stdout).unwrap();
    for address in b.addresses() {
        assert!(hosts.lines().any(|line| line.starts_with(&format!("{address} "))), "{hosts}");
    }
    let localhost = a.command("ping").args(["-c1", "-W1", "localhost"]).output().unwrap();
    assert!(localhost.status.success());
}

#[test]
fn segmented_veths_carry_only_whole_packets() {
    let (_lab, a, b) = pair(LinkSpec::segmented());
    let capture = a.capture("segments").unwrap();
    let _server = iperf_server(&b);
    iperf(&a, &b, &["-t", "1"]);
    let longest = longest_packet(&capture.stop().unwrap());
    assert_eq!(longest, 1_514);
}

fn longest_packet(pcap: &std::path::Path) -> usize {
    let lengths = output(Command::new("tcpdump").arg("-enr").arg(pcap));
    let after = |line: &str| {
        let length = line.split("length ").nth(1)?;
        length.split(':').next()?.parse().ok()
    };
    lengths.lines().filter_map(after).max().unwrap()
}

#[test]
fn captures_hold_what_was_sent() {
    let (_lab, a, b) = pair(LinkSpec::shaped(Impairment::NONE));
    let capture = a.capture("needle").unwrap();
    let sender = a.enter(|| UdpSocket::bind((a.v4(), 0))).unwrap().unwrap();
    for _ in 0..3 {
        sender.send_to(b"a needle in a stack", (b.v4(), 9)).unwrap();
    }
    std::thread::sleep(ms(100));
    let pcap = capture.stop().unwrap();
    // The host answers with ICMP errors that quote the datagram.
    assert!(packets_containing(&pcap, b"needle").unwrap() >= 3);
    assert_eq!(packets_containing(&pcap, b"haystack").unwrap(), 0);
}

#[test]
fn cuts_take_what_they_name_and_heal() {
    let (_lab, a, b) = pair(LinkSpec::direct());
    let pings = |from: &Host, to: &Host| {
        let to = to.v4().to_string();
        let mut ping = from.command("ping");
        ping.args(["-c1", "-W1", &to]).output().unwrap().status.success()
    };
    let receiver = b.enter(|| UdpSocket::bind((b.v4(), 9))).unwrap().unwrap();
    receiver.set_read_timeout(Some(ms(200))).unwrap();
    let sender = a.enter(|| UdpSocket::bind((a.v4(), 0))).unwrap().unwrap();
    let udp_arrives = || {
        // The sender is told nothing of the cut.
        sender.send_to(b"x", (b.v4(), 9)).unwrap();
        receiver.recv(&mut [0; 8]).is_ok()
    };

    a.cut(Direction::Up, Traffic::udp()).unwrap();
    assert!(!udp_arrives() && pings(&a, &b));
    a.heal().unwrap();
    assert!(udp_arrives());

    b.cut(Direction::Down, Traffic::with(a.v4())).unwrap();
    assert!(!udp_arrives() && !pings(&a, &b));
    b.heal().unwrap();
    b.isolate(Traffic::with(Ipv4Addr::new(203, 0, 113, 1))).unwrap();
    assert!(udp_arrives() && pings(&a, &b));
    b.heal().unwrap();
    b.heal().unwrap();
}

#[test]
fn a_lan_floods_broadcasts_and_a_shared_subnet_is_no_clash() {
    use lanrage_lab::{Lan, NatSpec};
    let lab = Lab::new().unwrap();
    let spec = |kind| NatSpec { lan: Lan::Same, ..NatSpec::new(kind, LinkSpec::direct()) };
    let one = lab.nat_with("one", spec(NatKind::Symmetric)).unwrap();
    let two = lab.nat_with("two", spec(NatKind::FullCone)).unwrap();
    let shaped = LinkSpec::shaped(Impairment::NONE);
    let a = one.host("a", shaped.clone()).unwrap();
    let b = one.host("b", shaped).unwrap();
    let c = two.host("c", LinkSpec::direct()).unwrap();
    assert_eq!(a.v4(), c.v4());

    let listen = |host: &Host| {
        let socket = host.enter(|| UdpSocket::bind(("0.0.0.0", 9))).unwrap().unwrap();
        socket.set_read_timeout(Some(ms(300))).unwrap();
        socket
    };
    let (at_b, at_c) = (listen(&b), listen(&c));
    let sender = a.enter(|| UdpSocket::bind(("0.0.0.0", 0))).unwrap().unwrap();
    sender.set_broadcast(true).unwrap();
    sender.send_to(b"x", ("255.255.255.255", 9)).unwrap();
    assert!(at_b.recv(&mut [0; 8]).is_ok());
    assert!(at_c.recv(&mut [0; 8]).is_err());
}

#[test]
fn a_lab_of_nine_namespaces_stands_quickly() {
    let start = Instant::now();
    let lab = Lab::new().unwrap();
    std::thread::scope(|scope| {
        for name in ["control", "relay1"] {
            let lab = &lab;
            scope.spawn(move || lab.host(name, LinkSpec::direct()).unwrap());
        }
        for name in ["A", "B", "C"] {
            let lab = &lab;
            scope.spawn(move || {
                let kind = NatKind::PortRestrictedCone;
                let nat = lab.nat(&format!("nat{name}"), kind, LinkSpec::direct()).unwrap();
                let shaped = LinkSpec::shaped(Impairment::NONE);
                let player = nat.host(&format!("player{name}"), shaped).unwrap();
                assert!(player.link().counters(Direction::Up).is_ok());
            });
        }
    });
    let built = start.elapsed();
    let start = Instant::now();
    drop(lab);
    println!("9 namespaces: built in {built:?}, torn down in {:?}", start.elapsed());
    // Two busy cores took 0.24 s to 0.37 s; a busier machine must not fail.
    assert!(built < Duration::from_secs(3), "built in {built:?}");
}
