//! Members play together whatever the underlay gives them: IPv4, IPv6, both, or one after the other.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lanrage_lab::{Families, LinkSpec, NatKind, Traffic};
use lanrage_scenarios::{
    BothWays, Deployment, Plan, Player, PlayerPlan, RelayPlan, eventually, rounds, transfer,
};

const PROMISED: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);
const FILE_LEN: usize = 8 << 20;
/// With the headers of IPv4 and ICMP as long as the virtual NIC's MTU.
const LONGEST_PING: usize = 1_500 - 20 - 8;

/// One relay, and a party of a player for each of `families`.
fn party(families: &[Families], link: &LinkSpec) -> Deployment {
    let player = PlayerPlan::on(NatKind::PortRestrictedCone, link.clone());
    let players = families.iter().map(|families| player.clone().with(*families)).collect();
    let plan = Plan { relays: vec![RelayPlan::default()], players, ..Plan::default() };
    let mut lab = Deployment::start(&plan).unwrap();
    lab.form_party("underlay").unwrap();
    lab
}

fn on_three_underlays() -> Deployment {
    party(&[Families::Ipv4, Families::Ipv6, Families::Both], &LinkSpec::direct())
}

#[test]
fn members_on_ipv4_on_ipv6_and_on_both_ping_each_other_through_one_relay() {
    let lab = on_three_underlays();
    for from in &lab.players {
        for to in lab.players.iter().filter(|to| to.name() != from.name()) {
            from.ping(to.address(), PATIENCE).unwrap();
        }
    }
    assert!(relay_address(&lab, &lab.players[0]).is_ipv4());
    assert!(relay_address(&lab, &lab.players[1]).is_ipv6());
}

#[test]
fn a_file_crosses_whole_between_ipv4_and_ipv6_both_ways() {
    let lab = on_three_underlays();
    for (from, to) in [(0, 1), (1, 0)] {
        arrives_whole(&lab.players[from], &lab.players[to]);
    }
}

#[track_caller]
fn arrives_whole(from: &Player, to: &Player) {
    from.ping(to.address(), PATIENCE).unwrap();
    let sent = transfer(from, to, FILE_LEN).unwrap();
    assert_eq!(sent.source_digest, sent.target_digest);
}

#[test]
fn play_goes_on_by_ipv6_when_ipv4_is_lost() {
    println!("longest gap: {:?}", survives_the_loss_of(Families::Ipv4));
}

#[test]
fn play_goes_on_by_ipv4_when_ipv6_is_lost() {
    println!("longest gap: {:?}", survives_the_loss_of(Families::Ipv6));
}

/// A member with both families loses the one it uses, without a word from its network; the longest
/// time without traffic.
fn survives_the_loss_of(lost: Families) -> Duration {
    let mut longest = Duration::ZERO;
    let lab = party(&[Families::Ipv4, Families::Both], &LinkSpec::direct());
    let (friend, player) = (&lab.players[0], &lab.players[1]);
    player.ping(friend.address(), PATIENCE).unwrap();
    for round in 0..rounds(2, 20) {
        use_only(&lab, player, lost);
        let play = BothWays::start(friend, player).unwrap();
        assert!(is_of(relay_address(&lab, player), lost), "round {round}");
        player.host().heal().unwrap();
        let struck = Instant::now();
        player.host().isolate(Traffic::of(lost)).unwrap();
        let gap = play.longest_gap_after(struck).unwrap();
        assert!(gap <= PROMISED, "round {round}: {gap:?} without traffic");
        assert!(!is_of(relay_address(&lab, player), lost), "round {round}");
        player.host().heal().unwrap();
        longest = longest.max(gap);
    }
    longest
}

/// Cuts the other family off, and waits until the member's lease is by this one.
fn use_only(lab: &Deployment, player: &Player, wanted: Families) {
    let other = if wanted == Families::Ipv4 { Families::Ipv6 } else { Families::Ipv4 };
    player.host().isolate(Traffic::of(other)).unwrap();
    let relay = lab.relays[0].name();
    eventually("a lease by the one family", PATIENCE, || {
        let holds = player.has_lease_at(relay)? && is_of(player.relay_address(relay)?, wanted);
        Ok(holds.then_some(()))
    })
    .unwrap();
}

fn relay_address(lab: &Deployment, player: &Player) -> SocketAddr {
    player.relay_address(lab.relays[0].name()).unwrap()
}

fn is_of(address: SocketAddr, family: Families) -> bool {
    address.is_ipv4() == (family == Families::Ipv4)
}

/// The least that an IPv6 link may carry (RFC 8200 §5).
fn on_narrow_ipv6() -> Deployment {
    party(&[Families::Ipv6, Families::Ipv6], &LinkSpec::direct().mtu(1_280))
}

#[test]
fn tcp_crosses_an_ipv6_underlay_of_1280_bytes() {
    let lab = on_narrow_ipv6();
    arrives_whole(&lab.players[0], &lab.players[1]);
}

#[test]
fn the_longest_packet_crosses_an_ipv6_underlay_of_1280_bytes() {
    let lab = on_narrow_ipv6();
    let (one, other) = (&lab.players[0], &lab.players[1]);
    one.ping_with(other.address(), LONGEST_PING, PATIENCE).unwrap();
}
