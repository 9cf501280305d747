//! Each kind of NAT does what its name says, told by real sockets.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use lanrage_lab::{
    Error, Families, Filtering, Host, Lab, LinkSpec, Mapping, Nat, NatKind, NatSpec, Rebind,
};

/// Long enough for a packet to cross four veth pairs on a busy machine.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);
/// Long enough to be sure that a packet was filtered.
const FILTERED_AFTER: Duration = Duration::from_millis(250);

struct Scene {
    // Sockets close before the lab goes down.
    inner: UdpSocket,
    first: UdpSocket,
    first_other_port: UdpSocket,
    second: UdpSocket,
    third: UdpSocket,
    player: Host,
    nat: Nat,
    lab: Lab,
}

fn bind(host: &Host, port: u16) -> UdpSocket {
    let socket = host.enter(|| UdpSocket::bind((host.v4(), port))).unwrap();
    let socket = socket.unwrap();
    socket.set_read_timeout(Some(ARRIVES_WITHIN)).unwrap();
    socket
}

fn scene(spec: NatSpec) -> Scene {
    let lab = Lab::new().unwrap();
    let first = lab.host("first", LinkSpec::direct()).unwrap();
    let second = lab.host("second", LinkSpec::direct()).unwrap();
    let third = lab.host("third", LinkSpec::direct()).unwrap();
    let nat = lab.nat_with("nat", spec).unwrap();
    let player = nat.host("player", LinkSpec::direct()).unwrap();
    Scene {
        inner: bind(&player, 51_820),
        first: bind(&first, 1_000),
        first_other_port: bind(&first, 2_000),
        second: bind(&second, 1_000),
        third: bind(&third, 1_000),
        player,
        nat,
        lab,
    }
}

fn scene_of(kind: NatKind) -> Scene {
    scene(NatSpec::new(kind, LinkSpec::direct()))
}

/// Sends from `inner` and returns the address it appears with.
fn outer(inner: &UdpSocket, server: &UdpSocket) -> SocketAddr {
    inner.send_to(b"out", server.local_addr().unwrap()).unwrap();
    let (len, from) = server.recv_from(&mut [0; 16]).expect("the packet gets out");
    assert_eq!(len, 3);
    from
}

fn gets_in(from: &UdpSocket, outer: SocketAddr, inner: &UdpSocket) -> bool {
    from.send_to(b"in", outer).unwrap();
    inner.set_read_timeout(Some(FILTERED_AFTER)).unwrap();
    inner.recv_from(&mut [0; 16]).is_ok_and(|(_, source)| {
        assert_eq!(source, from.local_addr().unwrap(), "the source is kept");
        true
    })
}

fn check(kind: NatKind) {
    let (mapping, filtering) = kind.behaviour().expect("a kind that translates");
    let scene = scene_of(kind);
    let outer_first = outer(&scene.inner, &scene.first);
    assert_eq!(outer_first.ip(), scene.nat.public_v4());
    assert!((10_000..60_000).contains(&outer_first.port()), "{outer_first}");

    // The answer always comes back.
    assert!(gets_in(&scene.first, outer_first, &scene.inner));

    let other_port = gets_in(&scene.first_other_port, outer_first, &scene.inner);
    let other_address = gets_in(&scene.second, outer_first, &scene.inner);
    let expected = match filtering {
        Filtering::EndpointIndependent => (true, true),
        Filtering::AddressDependent => (true, false),
        Filtering::AddressAndPortDependent => (false, false),
    };
    assert_eq!((other_port, other_address), expected, "{kind:?} filters so");

    let one_mapping = mapping == Mapping::EndpointIndependent;
    let outer_third = outer(&scene.inner, &scene.third);
    assert_eq!(outer_first == outer_third, one_mapping, "{kind:?}");
    assert!(gets_in(&scene.third, outer_third, &scene.inner));
    assert!(gets_in(&scene.first, outer_first, &scene.inner));
    // A packet that was filtered must not have spoilt the mapping. (One that was admitted is
    // answered through the port it came in by, whatever the mapping.)
    if !other_address {
        let outer_second = outer(&scene.inner, &scene.second);
        assert_eq!(outer_first == outer_second, one_mapping, "{kind:?}");
        assert!(gets_in(&scene.second, outer_second, &scene.inner));
    }
}

#[test]
fn full_cone() {
    check(NatKind::FullCone);
}

#[test]
fn restricted_cone() {
    check(NatKind::RestrictedCone);
}

#[test]
fn port_restricted_cone() {
    check(NatKind::PortRestrictedCone);
}

#[test]
fn symmetric() {
    check(NatKind::Symmetric);
}

#[test]
fn symmetric_with_endpoint_independent_filtering() {
    check(NatKind::Of(Mapping::AddressAndPortDependent, Filtering::EndpointIndependent));
}

#[test]
fn symmetric_with_address_dependent_filtering() {
    check(NatKind::Of(Mapping::AddressAndPortDependent, Filtering::AddressDependent));
}

#[test]
fn no_nat_routes_public_addresses() {
    let scene = scene_of(NatKind::None);
    assert!(matches!(scene.player.v4().octets(), [198, 19, _, 2]));
    let outer = outer(&scene.inner, &scene.first);
    assert_eq!(outer, scene.inner.local_addr().unwrap());
    assert!(gets_in(&scene.second, outer, &scene.inner));
    assert!(scene.nat.rebind(Rebind::NewPort).is_err());
}

/// The Linux way to translate would give both the outer port 51820 for different destinations.
#[test]
fn two_players_with_one_port_have_two_outer_ports() {
    let scene = scene_of(NatKind::FullCone);
    let sibling = scene.nat.host("sibling", LinkSpec::direct()).unwrap();
    let sibling_inner = bind(&sibling, 51_820);
    let outer_player = outer(&scene.inner, &scene.first);
    let outer_sibling = outer(&sibling_inner, &scene.second);
    assert_ne!(outer_player, outer_sibling);
    assert_eq!(outer(&sibling_inner, &scene.first), outer_sibling);
    assert_eq!(outer(&scene.inner, &scene.second), outer_player);
    assert!(gets_in(&scene.second, outer_player, &scene.inner));
    assert!(gets_in(&scene.first, outer_sibling, &sibling_inner));
}

#[test]
fn hole_punching_works_between_port_restricted_cones() {
    let scene = scene_of(NatKind::PortRestrictedCone);
    let nat = scene.lab.nat("nat2", NatKind::PortRestrictedCone, LinkSpec::direct()).unwrap();
    let other = nat.host("other", LinkSpec::direct()).unwrap();
    let other_inner = bind(&other, 51_820);
    let outer_player = outer(&scene.inner, &scene.first);
    let outer_other = outer(&other_inner, &scene.first);
    // The first one is filtered, and opens the way for the second.
    assert!(!gets_in_translated(&scene.inner, outer_other, &other_inner));
    assert!(gets_in_translated(&other_inner, outer_player, &scene.inner));
    assert!(gets_in_translated(&scene.inner, outer_other, &other_inner));
}

fn gets_in_translated(from: &UdpSocket, outer: SocketAddr, inner: &UdpSocket) -> bool {
    from.send_to(b"punch", outer).unwrap();
    inner.set_read_timeout(Some(FILTERED_AFTER)).unwrap();
    inner.recv_from(&mut [0; 16]).is_ok()
}

#[test]
fn rebind_to_a_new_port_changes_every_outer_port() {
    for kind in [NatKind::FullCone, NatKind::Symmetric] {
        let scene = scene_of(kind);
        let before = outer(&scene.inner, &scene.first);
        scene.nat.rebind(Rebind::NewPort).unwrap();
        assert!(!gets_in(&scene.first, before, &scene.inner), "{kind:?}");
        let after = outer(&scene.inner, &scene.first);
        assert_eq!(after.ip(), before.ip());
        assert_ne!(after.port(), before.port(), "{kind:?}");
        assert!(gets_in(&scene.first, after, &scene.inner), "{kind:?}");
    }
}

#[test]
fn rebind_to_a_new_address_leaves_the_old_one() {
    let scene = scene_of(NatKind::PortRestrictedCone);
    let before = outer(&scene.inner, &scene.first);
    scene.nat.rebind(Rebind::NewAddress).unwrap();
    assert!(!gets_in(&scene.first, before, &scene.inner));
    let after = outer(&scene.inner, &scene.first);
    assert_ne!(after.ip(), before.ip());
    assert_eq!(after.ip(), scene.nat.public_v4());
    assert!(gets_in(&scene.first, after, &scene.inner));
    // And TCP of the same LAN finds its way too.
    let ping = |to: Ipv4Addr| {
        let mut ping = scene.player.command("ping");
        ping.args(["-c1", "-W2", &to.to_string()]).output().unwrap()
    };
    let SocketAddr::V4(first) = scene.first.local_addr().unwrap() else {
        panic!("the lab's sockets are IPv4");
    };
    assert!(ping(*first.ip()).status.success());
}

#[test]
fn mappings_time_out() {
    for kind in [NatKind::FullCone, NatKind::PortRestrictedCone] {
        let scene = scene(NatSpec {
            mapping_timeout: Duration::from_secs(2),
            ..NatSpec::new(kind, LinkSpec::direct())
        });
        let before = outer(&scene.inner, &scene.first);
        assert!(gets_in(&scene.first, before, &scene.inner), "{kind:?}");
        std::thread::sleep(Duration::from_secs(4));
        assert!(!gets_in(&scene.first, before, &scene.inner), "{kind:?}");
    }
}

#[test]
fn a_host_with_one_family_has_no_other() {
    let lab = Lab::new().unwrap();
    lab.host("server", LinkSpec::direct()).unwrap();
    for (name, families) in [("v4", Families::Ipv4), ("v6", Families::Ipv6)] {
        let spec = NatSpec { families, ..NatSpec::new(NatKind::FullCone, LinkSpec::direct()) };
        let nat = lab.nat_with(&format!("nat-{name}"), spec).unwrap();
        let host = nat.host(name, LinkSpec::direct()).unwrap();
        let answers = |family: &str| {
            let args = [family, "-c1", "-W2", "server"];
            host.command("ping").args(args).output().unwrap().status.success()
        };
        assert_eq!(answers("-4"), families == Families::Ipv4, "{families:?}");
        assert_eq!(answers("-6"), families == Families::Ipv6, "{families:?}");
        assert_eq!(host.addresses().count(), 1);
    }
    let narrow = NatSpec {
        families: Families::Ipv6,
        ..NatSpec::new(NatKind::FullCone, LinkSpec::direct().mtu(1_279))
    };
    let nat = lab.nat_with("nat-narrow", narrow).unwrap();
    let refused = nat.host("narrow", LinkSpec::direct());
    assert!(matches!(refused, Err(Error::NoAddress(_))));
}

#[test]
fn ipv6_passes_a_nat_untranslated_when_asked() {
    let scene = scene(NatSpec {
        families: Families::Both,
        ..NatSpec::new(NatKind::Symmetric, LinkSpec::direct())
    });
    let outside = scene.lab.host("outside", LinkSpec::direct()).unwrap();
    let bind = |host: &Host| {
        let address = host.v6().expect("the host has IPv6");
        let socket = host.enter(|| UdpSocket::bind((address, 9))).unwrap().unwrap();
        socket.set_read_timeout(Some(ARRIVES_WITHIN)).unwrap();
        socket
    };
    let (inner, outside) = (bind(&scene.player), bind(&outside));
    assert_eq!(outer(&inner, &outside), inner.local_addr().unwrap());
    assert!(gets_in(&outside, inner.local_addr().unwrap(), &inner));
}
