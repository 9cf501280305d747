//! The virtual NIC in network namespaces of its own, on the real kernel. Needs root.

#![expect(clippy::unwrap_used, reason = "helpers of tests stand outside test functions")]

mod common;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::Netns;
use lanrage::nic::{
    Lan, MemberSet, Network, Nic, NicDrop, NicError, Overlaps, Read, detour, route_overlaps,
    watch_underlay,
};
use lanrage_client_core::Networks;
use lanrage_proto::{Member, SessionId};

const NAME: &str = "lanrage0";

fn member(number: u8) -> Member {
    Member::new(number).unwrap()
}

fn lan() -> Lan {
    Lan {
        session: SessionId(0x1234),
        me: member(3),
        networks: Networks {
            subnet: Ipv4Addr::new(10, 66, 5, 0),
            prefix: "fd00:1:2:3::".parse().unwrap(),
        },
    }
}

/// Runs a future in a runtime of its own, on a thread inside the namespace.
fn inside<T: Send>(netns: &Netns, f: impl AsyncFnOnce() -> T + Send) -> T {
    netns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(f())
    })
}

/// The next IP packet that `wanted` picks; answers what is asked meanwhile.
async fn next_packet(nic: &mut Nic, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let search = async {
        loop {
            nic.readable().await.unwrap();
            match nic.read(Instant::now()).unwrap() {
                Read::Packet(packet) if wanted(packet) => return packet.to_vec(),
                Read::Packet(_) | Read::Consumed | Read::Empty => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), search).await.expect("the packet comes")
}

async fn drain_for(nic: &mut Nic, time: Duration) {
    let drain = async {
        loop {
            nic.readable().await.unwrap();
            let _packet = nic.read(Instant::now()).unwrap();
        }
    };
    let _elapsed = within(time, drain).await;
}

async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, future).await.ok()
}

fn is_udp_to(address: IpAddr) -> impl Fn(&[u8]) -> bool {
    move |packet| match address {
        IpAddr::V4(address) => {
            packet[0] == 0x45 && packet[9] == 17 && packet[16..20] == address.octets()
        }
        IpAddr::V6(address) => {
            packet[0] >> 4 == 6 && packet[6] == 17 && packet[24..40] == address.octets()
        }
    }
}

/// `eth0`, up, with the other end of its cable in the same namespace.
fn physical_card(netns: &Netns) {
    netns.ip("link add eth0 type veth peer name cable");
    netns.ip("link set cable up");
    netns.ip("link set eth0 up");
}

#[test]
fn card_has_the_flags_addresses_and_routes_that_games_expect() {
    let netns = Netns::new();
    inside(&netns, async || {
        let nic = Nic::up(NAME, lan()).await.unwrap();
        let link = netns.ip(&format!("-o link show {NAME}"));
        assert!(link.contains("BROADCAST,MULTICAST,UP,LOWER_UP"), "{link}");
        assert!(link.contains("mtu 1500"), "{link}");
        assert!(link.contains(&format!("link/ether {}", lan().own_mac())), "{link}");

        let ipv4 = netns.ip(&format!("-o -4 addr show dev {NAME}"));
        assert!(ipv4.contains("10.66.5.3/24") && ipv4.contains("brd 10.66.5.255"), "{ipv4}");
        let ipv6 = netns.ip(&format!("-o -6 addr show dev {NAME}"));
        assert_eq!(ipv6.lines().count(), 2, "no address made up by the kernel: {ipv6}");
        assert!(ipv6.contains("fd00:1:2:3::3/64") && ipv6.contains("fe80::3/64"), "{ipv6}");
        assert!(!ipv6.contains("tentative"), "{ipv6}");

        let routes = netns.ip(&format!("route show dev {NAME}"));
        for route in ["255.255.255.255 ", "224.0.0.0/4 ", "10.66.5.0/24 "] {
            let line = routes.lines().find(|line| line.starts_with(route)).expect(route);
            assert!(line.contains("metric 50"), "{line}");
        }
        for (key, value) in [
            ("ipv6/conf/lanrage0/accept_ra", "0"),
            ("ipv6/conf/lanrage0/accept_redirects", "0"),
            ("ipv6/conf/lanrage0/router_solicitations", "0"),
            ("ipv4/conf/lanrage0/accept_redirects", "0"),
            ("ipv6/conf/lanrage0/addr_gen_mode", "1"),
        ] {
            let found = std::fs::read_to_string(format!("/proc/sys/net/{key}")).unwrap();
            assert_eq!(found.trim(), value, "{key}");
        }
        drop(nic);
    });
    assert!(!netns.ip("-o link show").contains(NAME), "the card is gone with the Nic");
    assert_eq!(netns.ip("route show"), "");
}

#[test]
fn host_finds_online_members_and_only_those() {
    let netns = Netns::new();
    inside(&netns, async || {
        let mut nic = Nic::up(NAME, lan()).await.unwrap();
        nic.set_online([member(3), member(7)].into_iter().collect());
        let networks = lan().networks;
        for address in [IpAddr::from(networks.ipv4(member(7))), networks.ipv6(member(7)).into()] {
            let any: SocketAddr =
                if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
            let socket = UdpSocket::bind(any).unwrap();
            socket.send_to(b"hello", (address, 4000)).unwrap();
            let packet = next_packet(&mut nic, is_udp_to(address)).await;
            assert!(packet.ends_with(b"hello"));
            let neighbours = netns.ip(&format!("neigh show {address}"));
            assert!(neighbours.contains(&lan().mac(member(7)).to_string()), "{neighbours}");
        }

        let absent = networks.ipv4(member(8));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"hello", (absent, 4000)).unwrap();
        drain_for(&mut nic, Duration::from_millis(300)).await;
        assert!(nic.drops().of(NicDrop::NobodyAnswers) > 0);
        let neighbours = netns.ip(&format!("neigh show {absent}"));
        assert!(!neighbours.contains("lladdr"), "{neighbours}");
    });
}

#[test]
fn member_that_goes_offline_is_no_longer_found() {
    let netns = Netns::new();
    inside(&netns, async || {
        let mut nic = Nic::up(NAME, lan()).await.unwrap();
        let address = lan().networks.ipv4(member(7));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        nic.set_online([member(7)].into_iter().collect());
        socket.send_to(b"one", (address, 4000)).unwrap();
        next_packet(&mut nic, is_udp_to(address.into())).await;

        nic.set_online(MemberSet::default());
        netns.ip(&format!("neigh change {address} dev {NAME} nud probe"));
        drain_for(&mut nic, Duration::from_secs(4)).await;
        let neighbours = netns.ip(&format!("neigh show {address}"));
        assert!(!neighbours.contains("lladdr") || neighbours.contains("FAILED"), "{neighbours}");
    });
}

#[test]
fn packets_from_members_reach_sockets() {
    let netns = Netns::new();
    inside(&netns, async || {
        let mut nic = Nic::up(NAME, lan()).await.unwrap();
        let socket = UdpSocket::bind("0.0.0.0:27015").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        for destination in [[10, 66, 5, 3], [10, 66, 5, 255], [255, 255, 255, 255]] {
            let mut packet = Vec::new();
            let builder = etherparse::PacketBuilder::ipv4([10, 66, 5, 7], destination, 64);
            builder.udp(4000, 27015).write(&mut packet, b"lobby").unwrap();
            nic.write(&packet);
            let mut buffer = [0; 100];
            let (length, source) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"lobby");
            assert_eq!(source, "10.66.5.7:4000".parse().unwrap());
        }
        nic.write(b"no packet");
        assert_eq!(nic.drops().of(NicDrop::Malformed), 1);
    });
}

#[test]
fn broadcasts_leave_by_the_card_even_beside_a_default_route() {
    let netns = Netns::new();
    physical_card(&netns);
    netns.ip("addr add 192.168.77.2/24 dev eth0");
    netns.ip("route add default via 192.168.77.1");
    inside(&netns, async || {
        let mut nic = Nic::up(NAME, lan()).await.unwrap();
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_broadcast(true).unwrap();
        for group in ["255.255.255.255", "10.66.5.255", "224.0.2.60", "239.255.255.250"] {
            let address: IpAddr = group.parse().unwrap();
            socket.send_to(b"who is there", (address, 4445)).unwrap();
            let packet = next_packet(&mut nic, is_udp_to(address)).await;
            assert_eq!(packet[12..16], [10, 66, 5, 3], "{group}");
        }
        let default = netns.ip("route get 198.51.100.1");
        assert!(default.contains("dev eth0"), "{default}");
    });
}

#[test]
fn host_may_look_for_every_member_at_once() {
    let netns = Netns::new();
    inside(&netns, async || {
        let mut nic = Nic::up(NAME, lan()).await.unwrap();
        nic.set_online(Member::all().collect());
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for other in Member::all().filter(|other| *other != member(3)) {
            socket.send_to(b"x", (lan().networks.ipv4(other), 1)).unwrap();
        }
        drain_for(&mut nic, Duration::from_millis(500)).await;
        let found = netns.ip(&format!("neigh show dev {NAME}"));
        assert_eq!(found.lines().filter(|line| line.contains("lladdr")).count(), 249);
        assert_eq!(nic.drops().of(NicDrop::NeighbourLimit), 0);
    });
}

#[test]
fn name_of_another_interface_is_left_alone() {
    let netns = Netns::new();
    netns.ip(&format!("tuntap add {NAME} mode tap"));
    inside(&netns, async || {
        let error = Nic::up(NAME, lan()).await.unwrap_err();
        assert!(matches!(error, NicError::NameTaken { .. }), "{error}");
    });
    assert!(netns.ip("-o link show").contains(NAME));
}

#[test]
fn without_the_capability_the_error_says_which() {
    let netns = Netns::new();
    let output = netns
        .command("setpriv")
        .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "hold_the_card", "--nocapture", "--ignored"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("run as root or grant CAP_NET_ADMIN"), "{text}");
}

#[test]
fn nothing_is_left_after_sigkill() {
    let netns = Netns::new();
    let before = state_of(&netns);
    let mut holder = netns
        .command(std::env::current_exe().unwrap().to_str().unwrap())
        .args(["--exact", "hold_the_card", "--nocapture", "--ignored"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !netns.ip("route show").contains("224.0.0.0/4") {
        assert!(Instant::now() < deadline, "the card comes up");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_ne!(state_of(&netns), before);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(state_of(&netns), before);
}

/// All that the client changes: links, addresses, routes, rules, sysctls.
fn state_of(netns: &Netns) -> String {
    let sysctls =
        common::run(netns.command("sysctl").args(["-a", "--pattern", "^net.ipv[46].conf"]));
    let shown =
        ["link show", "addr show", "route show table all", "-6 route show table all", "rule"];
    shown.iter().map(|what| netns.ip(what)).collect::<String>() + &sysctls
}

/// Not a test: the process that [`nothing_is_left_after_sigkill`] kills.
#[test]
#[ignore = "runs only as a child of other tests"]
fn hold_the_card() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match Nic::up(NAME, lan()).await {
            Ok(_nic) => std::future::pending::<()>().await,
            Err(error) => println!("{error}"),
        }
    });
}

/// What overlaps the party's IPv4 and IPv6 network: conflicts, and wider routes.
fn overlaps(netns: &Netns) -> (Vec<String>, Vec<String>) {
    let (mut conflicts, mut wider) = (Vec::new(), Vec::new());
    for network in Network::of_party(&lan().networks) {
        let found = inside(netns, async || route_overlaps(network, NAME).await.unwrap());
        conflicts.extend(found.conflict.map(|overlap| overlap.to_string()));
        wider.extend(found.wider.map(|overlap| overlap.to_string()));
    }
    (conflicts, wider)
}

#[test]
fn overlapping_routes_and_addresses_are_named() {
    let netns = Netns::new();
    physical_card(&netns);
    let conflict = |netns: &Netns| overlaps(netns).0.join(", ");
    netns.ip("route add default dev eth0");
    assert_eq!(conflict(&netns), "");
    netns.ip("route add 10.66.0.0/16 dev eth0");
    assert_eq!(conflict(&netns), "10.66.0.0/16 on eth0");
    netns.ip("route add 10.66.5.128/25 dev eth0 table 77");
    assert_eq!(conflict(&netns), "10.66.5.128/25 on eth0");
    netns.ip("addr add 10.66.5.9/24 dev eth0");
    assert_eq!(conflict(&netns), "10.66.5.9/32 on eth0");
    netns.ip("-6 route add fd00:1:2::/48 dev eth0");
    assert_eq!(conflict(&netns), "10.66.5.9/32 on eth0, fd00:1:2::/48 on eth0");
    let elsewhere = Network::of_subnet(Ipv4Addr::new(10, 67, 5, 0));
    let found = inside(&netns, async || route_overlaps(elsewhere, NAME).await.unwrap());
    assert_eq!(found, Overlaps::default());
}

/// A host whose gateway or VPN has all of 10.0.0.0/8 could join no party at all: each wider route
/// was taken for a conflict, though the party's /24 is more specific.
#[test]
fn regression_wider_routes_of_gateways_do_not_conflict_but_connected_networks_do() {
    let netns = Netns::new();
    physical_card(&netns);
    netns.ip("addr add 192.168.77.2/24 dev eth0");
    netns.ip("link add tun0 type veth peer name far0");
    netns.ip("link set tun0 up");
    netns.ip("route add 10.0.0.0/8 via 192.168.77.1 dev eth0");
    netns.ip("route add 10.64.0.0/10 dev tun0 proto static scope link");
    netns.ip("-6 route add fc00::/7 dev tun0");
    let (conflicts, wider) = overlaps(&netns);
    assert!(conflicts.is_empty(), "{conflicts:?}");
    assert_eq!(wider, ["10.64.0.0/10 on tun0", "fc00::/7 on tun0"]);
    inside(&netns, async || {
        let nic = Nic::up(NAME, lan()).await.unwrap();
        assert_eq!(detour(lan().networks.ipv4(member(1)), nic.index()).await.unwrap(), None);
        for address in ["10.66.5.1", "fd00:1:2:3::1"] {
            let way = netns.ip(&format!("route get {address}"));
            assert!(way.contains("dev lanrage0"), "{way}");
        }
    });

    netns.ip("addr add 10.99.0.5/8 dev eth0");
    netns.ip("-6 addr add fd00::5/32 dev eth0 nodad");
    let (conflicts, _) = overlaps(&netns);
    assert_eq!(conflicts, ["10.0.0.0/8 on eth0"]);
    netns.ip("-6 addr add fd00:1::5/32 dev eth0 nodad");
    let (conflicts, _) = overlaps(&netns);
    assert_eq!(conflicts, ["10.0.0.0/8 on eth0", "fd00:1::/32 on eth0"]);
    netns.ip("addr del 10.99.0.5/8 dev eth0");
    netns.ip("route add 10.66.0.0/17 nexthop via 192.168.77.1 nexthop via 192.168.77.3");
    assert_eq!(overlaps(&netns).0[0], "10.66.0.0/17 on eth0");
}

#[test]
fn routes_that_a_rule_puts_before_the_main_table_are_found() {
    let netns = Netns::new();
    physical_card(&netns);
    netns.ip("route add 10.0.0.0/8 dev eth0 table 52");
    netns.ip("rule add pref 5270 lookup 52");
    let (conflicts, wider) = overlaps(&netns);
    assert_eq!((conflicts.len(), wider), (0, vec!["10.0.0.0/8 on eth0".to_owned()]));
    inside(&netns, async || {
        let nic = Nic::up(NAME, lan()).await.unwrap();
        let found = detour(lan().networks.ipv4(member(1)), nic.index()).await.unwrap().unwrap();
        assert_eq!(found.to_string(), "10.0.0.0/8 on eth0");
        netns.ip("rule del pref 5270");
        assert_eq!(detour(lan().networks.ipv4(member(1)), nic.index()).await.unwrap(), None);
    });
}

#[test]
fn own_card_is_no_overlap() {
    let netns = Netns::new();
    let party = Network::of_subnet(lan().networks.subnet);
    inside(&netns, async || {
        let _nic = Nic::up(NAME, lan()).await.unwrap();
        assert_eq!(route_overlaps(party, NAME).await.unwrap(), Overlaps::default());
        let found = route_overlaps(party, "other0").await.unwrap().conflict.unwrap();
        assert_eq!(found.interface, NAME);
    });
}

#[test]
fn changes_of_the_underlay_are_noticed_and_those_of_the_card_are_not() {
    let netns = Netns::new();
    physical_card(&netns);
    inside(&netns, async || {
        let mut changes = watch_underlay(NAME.to_owned()).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let nic = Nic::up(NAME, lan()).await.unwrap();
        let noticed = within(Duration::from_secs(1), changes.changed()).await;
        assert!(noticed.is_none(), "the card is not the underlay");
        netns.ip("addr add 192.168.77.2/24 dev eth0");
        let noticed = within(Duration::from_secs(1), changes.changed()).await;
        assert!(noticed.is_some(), "a new address is a change");
        drop(nic);
    });
}

#[test]
fn card_deleted_by_someone_else_is_noticed() {
    let netns = Netns::new();
    inside(&netns, async || {
        let mut nic = Nic::up(NAME, lan()).await.unwrap();
        drain_for(&mut nic, Duration::from_millis(100)).await;
        assert!(nic.read(Instant::now()).is_ok());
        netns.ip(&format!("link del {NAME}"));
        assert!(nic.read(Instant::now()).is_err());
    });
}

/// The kernel gives no IPv6 address where IPv6 is switched off: there was no LAN at all.
#[test]
fn regression_host_without_ipv6_gets_a_card_with_ipv4() {
    for which in ["default", "all"] {
        let netns = Netns::new();
        inside(&netns, async || {
            let switch = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
            std::fs::write(switch, "1").unwrap();
            let _nic = Nic::up(NAME, lan()).await.unwrap();
            let addresses = netns.ip(&format!("-o addr show dev {NAME}"));
            assert!(addresses.contains("10.66.5.3/24"), "{which}: {addresses}");
            assert!(!addresses.contains("inet6"), "{which}: {addresses}");
            assert!(Nic::is_intact(NAME, &lan()).await.unwrap());
        });
    }
}

#[test]
fn trial_says_what_stands_in_the_way_and_leaves_nothing() {
    let netns = Netns::new();
    physical_card(&netns);
    inside(&netns, async || {
        Nic::check(NAME).await.unwrap();
        assert!(!netns.ip("-o link show").contains(NAME));
        assert!(matches!(Nic::check("eth0").await, Err(NicError::NameTaken { .. })));
        assert!(matches!(Nic::check("a/b").await, Err(NicError::BadName { .. })));
    });
}
