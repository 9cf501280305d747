//! The whole relay over loopback, on each back end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::Command;

use common::traffic::one;
use common::{Client, Relay, prepare};
use lanrage_proto::frame::control::Message;
use lanrage_proto::frame::data::Delivered;
use lanrage_proto::frame::hint::Hint;
use lanrage_proto::ids::Destination;
use lanrage_relay::config::BackendSetting;

fn value(page: &str, series: &str) -> u64 {
    let line = page.lines().find(|line| line.starts_with(&format!("{series} ")));
    let line = line.unwrap_or_else(|| panic!("no series {series}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn life_of_a_lease(backend: BackendSetting) {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let relay = Relay::start(dir.path(), backend);

    let (mut a, mut b) = (Client::new(relay.ipv4(), 1), Client::new(relay.ipv6(), 2));
    let mut c = Client::new(relay.ipv4(), 3);
    let leases = [a.bind(), b.bind(), c.bind()];
    assert_eq!(leases[0].reflexive, a.socket.local_addr().unwrap());
    assert!(a.probe(&leases[0]) && b.probe(&leases[1]) && c.probe(&leases[2]));
    relay.until(|page| value(page, "lanrage_relay_leases{state=\"active\"}") == 3);

    a.socket.send(&a.frame(&leases[0], one(2), b"from IPv4 to IPv6")).unwrap();
    let got = b.receive().unwrap();
    let (header, payload) = Delivered::decode(&got).unwrap();
    assert_eq!(payload, b"from IPv4 to IPv6");
    assert_eq!((header.source.number(), header.ingress), (1, common::RELAY));

    c.socket.send(&c.frame(&leases[2], Destination::Everyone, b"all")).unwrap();
    assert!(a.receive().unwrap().ends_with(b"all"));
    assert!(b.receive().unwrap().ends_with(b"all"));

    let hint = a.ask(&a.frame(&leases[0], one(9), b"nobody")).unwrap();
    assert!(Hint::decode(&hint).is_ok());

    let Some(Message::RebindChallenge(cookie)) = ({
        a.move_away();
        a.control(&leases[0], Message::Rebind, 1)
    }) else {
        panic!("no challenge");
    };
    let rebound = a.control(&leases[0], Message::RebindAnswer(cookie), 2);
    assert_eq!(rebound, Some(Message::Rebound(a.socket.local_addr().unwrap())));
    assert!(a.probe(&leases[0]));

    a.socket.send(&Message::Release.seal(&leases[0].key_to_relay, leases[0].handle, 3)).unwrap();
    relay.until(|page| value(page, "lanrage_relay_leases_ended_total{cause=\"released\"}") == 1);
    assert!(!a.probe(&leases[0]));

    let page = relay.until(|page| {
        value(page, "lanrage_relay_packets_sent_total")
            >= value(page, "lanrage_relay_broadcast_copies_total") + 7
    });
    for part in ["shards", "binder", "sending"] {
        let series = format!("lanrage_relay_accounting_skew{{part=\"{part}\"}}");
        assert_eq!(value(&page, &series), 0, "{part}");
    }
    let dropped = "lanrage_relay_packets_dropped_total{reason=\"no_peer\",fault=\"client\"}";
    assert_eq!(value(&page, dropped), 1);
    assert_eq!(value(&page, "lanrage_relay_packets_forwarded_total{to=\"everyone\"}"), 1);
    assert!(relay.get("/readyz").starts_with("HTTP/1.1 200"));
    assert!(relay.get("/nothing").starts_with("HTTP/1.1 404"));
    relay.stop();
}

#[test]
fn life_of_a_lease_on_io_uring() {
    life_of_a_lease(BackendSetting::IoUring);
}

#[test]
fn life_of_a_lease_on_recvmmsg() {
    life_of_a_lease(BackendSetting::Recvmmsg);
}

/// coturn's client, from Debian's coturn-utils: an implementation that is not ours.
#[test]
fn any_stun_client_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let relay = Relay::start(dir.path(), BackendSetting::Auto);
    for at in [relay.ipv4(), relay.ipv6()] {
        let done = Command::new("turnutils_stunclient")
            .args(["-p", &at.port().to_string(), &at.ip().to_string()])
            .output()
            .expect("turnutils_stunclient is installed");
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(said.contains("UDP reflexive addr"), "{said}");
    }
    relay.until(|page| value(page, "lanrage_relay_packets_answered_total") >= 2);
    relay.stop();
}
