//! Three whole relays over loopback, on each back end: what members at two of them send one another,
//! and frames made by hand.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::traffic::one;
use common::{Client, POOL, Relay, free_port, prepare_all};
use lanrage_proto::frame::bind::Lease;
use lanrage_proto::frame::data::{Delivered, HEADER_LEN};
use lanrage_proto::frame::hint::{Hint, HintKind};
use lanrage_proto::frame::mesh::{GROWTH, MeshHeader, MeshKey, MeshKind, MeshSecret, Moment};
use lanrage_proto::ids::{Destination, Member, RelayId, SessionId};
use lanrage_relay::Settings;
use lanrage_relay::config::BackendSetting;
use lanrage_relay::state::StateDir;
use quinn_udp::{Transmit, UdpSocketState};
use tempfile::TempDir;
use x25519_dalek::StaticSecret;

const IDS: [RelayId; 3] = [RelayId(11), RelayId(12), RelayId(13)];

struct Fleet {
    relays: [Relay; 3],
    /// Between the third relay and the second: the test speaks for the third.
    secret: MeshSecret,
    _dirs: [TempDir; 3],
}

impl Fleet {
    fn start(backend: BackendSetting) -> Self {
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let ports = [(); 3].map(|()| SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()));
        let places: Vec<_> = (0..3).map(|at| (IDS[at], dirs[at].path(), ports[at])).collect();
        prepare_all(&places);
        let keys = [&dirs[1], &dirs[2]].map(|dir| {
            let state = StateDir::open(dir.path()).unwrap();
            let enrolment = state.enrolment().unwrap().unwrap();
            let keys = state.keys().unwrap();
            (keys.tunnel_key(), keys.binder_identity(&enrolment).key)
        });
        let private = StaticSecret::from(*keys[1].1);
        let secret = MeshSecret::agree(&private, &keys[0].0, POOL).unwrap();
        let start = |at: usize| {
            let settings = Settings {
                backend: Some(backend),
                listen: Some(vec![ports[at].into()]),
                ..Settings::default()
            };
            Relay::start_with(dirs[at].path(), settings)
        };
        Self { relays: [start(0), start(1), start(2)], secret, _dirs: dirs }
    }

    /// Member 1 at the first relay, and members 2 and 3 at the second.
    fn members(&self) -> [(Client, Lease); 3] {
        let members = [(0, 1), (1, 2), (1, 3)].map(|(relay, member)| {
            let mut client = Client::new(self.relays[relay].ipv4(), member);
            let lease = client.bind();
            assert!(client.probe(&lease));
            (client, lease)
        });
        for (relay, leases) in [(0, 1), (1, 2)] {
            self.relays[relay].until(|page| value(page, "leases{state=\"active\"}") == leases);
        }
        members
    }

    /// A frame of member 1 for member 2, as if the third relay had sent it to the second.
    fn made(&self, epoch_ahead: u32, counter: u64, payload: &[u8]) -> Vec<u8> {
        let mut moment = moment();
        moment.epoch.0 += epoch_ahead;
        let key = self.secret.key(IDS[2], IDS[1], moment.epoch);
        let header = MeshHeader {
            kind: MeshKind::Data,
            sender: IDS[2],
            epoch: moment.epoch.to_wire(),
            shard: 77,
            source: Member::new(1).unwrap(),
            destination: one(2),
            counter: moment.first_counter + counter,
            session: SessionId(0xabc),
        };
        frame(&header, &key, payload)
    }

    fn value(&self, relay: usize, series: &str) -> u64 {
        value(&self.relays[relay].get("/metrics"), series)
    }

    /// Every relay's accounts balance, once nothing is under way.
    fn stop(self) {
        for relay in self.relays {
            relay.until(|page| {
                let parts = ["shards", "binder", "sending"];
                parts
                    .iter()
                    .all(|part| value(page, &format!("accounting_skew{{part=\"{part}\"}}")) == 0)
            });
            relay.stop();
        }
    }
}

fn frame(header: &MeshHeader, key: &MeshKey, payload: &[u8]) -> Vec<u8> {
    let len = HEADER_LEN + GROWTH + payload.len();
    [&header.encode(key, len)[..], payload].concat()
}

fn moment() -> Moment {
    Moment::new(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos())
}

fn value(page: &str, series: &str) -> u64 {
    let start = format!("lanrage_relay_{series} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("no series {series}")).parse().unwrap()
}

fn dropped(reason: &str, fault: &str) -> String {
    format!("packets_dropped_total{{reason=\"{reason}\",fault=\"{fault}\"}}")
}

fn reach_one_another(backend: BackendSetting) {
    let fleet = Fleet::start(backend);
    let [(a, to_first), (b, to_second), (c, _)] = &fleet.members();
    let question = a.frame_by(IDS[1], to_first, one(2), b"from relay to relay");
    a.socket.send(&question).unwrap();
    let got = b.receive().unwrap();
    let (header, payload) = Delivered::decode(&got).unwrap();
    assert_eq!(payload, b"from relay to relay");
    assert_eq!((header.ingress, header.egress), (IDS[0], IDS[1]));
    b.socket.send(&b.frame_by(header.ingress, to_second, one(1), b"and back")).unwrap();
    assert!(a.receive().unwrap().ends_with(b"and back"));

    a.socket.send(&a.frame_by(IDS[1], to_first, Destination::Everyone, b"all there")).unwrap();
    assert!(b.receive().unwrap().ends_with(b"all there"));
    assert!(c.receive().unwrap().ends_with(b"all there"));

    for (egress, to) in [(IDS[1], 9), (IDS[2], 2), (RelayId(99), 2)] {
        let hint = a.ask(&a.frame_by(egress, to_first, one(to), b"not there")).unwrap();
        let kind = HintKind::NoPeerThere(Member::new(to).unwrap(), egress);
        let expected = Hint { kind, handle: to_first.handle, tag: to_first.tag };
        assert_eq!(Hint::decode(&hint), Ok(expected));
    }
    fleet.relays[0].until(|page| value(page, "mesh_absent_total") == 2);
    assert_eq!(fleet.value(0, "packets_forwarded_total{to=\"relay\"}"), 4);
    assert_eq!(fleet.value(1, "packets_from_relays_total"), 2);
    assert_eq!(fleet.value(0, &dropped("no_mesh", "relay")), 1);
    fleet.stop();
}

#[test]
fn members_at_two_relays_reach_one_another_on_io_uring() {
    reach_one_another(BackendSetting::IoUring);
}

#[test]
fn members_at_two_relays_reach_one_another_on_recvmmsg() {
    reach_one_another(BackendSetting::Recvmmsg);
}

/// A train that a member sends leaves its relay as a train and the other relay, too: arrivals are
/// counted where trains would show as such.
fn a_train_survives_the_hop(backend: BackendSetting) {
    const SEGMENTS: usize = 40;
    let fleet = Fleet::start(backend);
    let [(a, lease), (b, _), _] = &fleet.members();
    let relay = a.socket.peer_addr().unwrap();
    let segment = |number: usize| {
        let len = if number == SEGMENTS - 1 { 300 } else { 1_200 };
        a.frame_by(IDS[1], lease, one(2), &vec![number as u8; len])
    };
    let train: Vec<u8> = (0..SEGMENTS).flat_map(segment).collect();
    let before = [0, 1].map(|at| fleet.value(at, "batch_arrivals_sum"));
    let state = UdpSocketState::new((&a.socket).into()).unwrap();
    let transmit = Transmit {
        destination: relay,
        ecn: None,
        contents: &train,
        segment_size: Some(segment(0).len()),
        src_ip: None,
    };
    state.try_send((&a.socket).into(), &transmit).unwrap();
    for number in 0..SEGMENTS {
        let got = b.receive().unwrap();
        let (_, payload) = Delivered::decode(&got).unwrap();
        assert_eq!(payload[0], number as u8, "in order");
        assert_eq!(payload.len(), if number == SEGMENTS - 1 { 300 } else { 1_200 });
    }
    fleet.relays[1].until(|page| value(page, "packets_from_relays_total") == SEGMENTS as u64);
    for at in [0, 1] {
        let arrivals = fleet.value(at, "batch_arrivals_sum") - before[at];
        assert!(arrivals <= 2, "{arrivals} arrivals at relay {at} for {SEGMENTS} frames");
    }
    fleet.stop();
}

#[test]
fn a_train_survives_the_hop_on_io_uring() {
    a_train_survives_the_hop(BackendSetting::IoUring);
}

#[test]
fn a_train_survives_the_hop_on_recvmmsg() {
    a_train_survives_the_hop(BackendSetting::Recvmmsg);
}

#[test]
fn bad_frames_between_relays_are_counted_and_good_ones_delivered_once_in_any_order() {
    let fleet = Fleet::start(BackendSetting::Auto);
    let [_, (b, _), _] = &fleet.members();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(fleet.relays[1].ipv4()).unwrap();
    let is_delivered = |frame: &[u8]| {
        socket.send(frame).unwrap();
        b.receive().is_some()
    };
    let good = fleet.made(0, 9, b"good");
    assert!(is_delivered(&good));
    for counter in [7, 8, 5, 12, 6] {
        assert!(is_delivered(&fleet.made(0, counter, b"reordered")), "{counter}");
    }
    assert!(is_delivered(&fleet.made(1, 3, b"by a clock that is ahead")));

    b.socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let changed = |at: usize, by: u8| {
        let mut frame = fleet.made(0, 20, b"changed");
        frame[at] ^= by;
        frame
    };
    let mut looping = fleet.made(0, 21, b"looping");
    looping[2..4].copy_from_slice(&IDS[1].0.to_be_bytes());
    for (reason, fault, frame) in [
        ("mesh_replayed", "client", good),
        ("mesh_forged", "client", changed(31, 1)),
        ("mesh_loop", "client", looping),
        ("mesh_unknown_relay", "client", changed(2, 1)),
        ("mesh_malformed", "client", changed(1, 2)),
        ("mesh_epoch", "relay", fleet.made(3, 22, b"of a later epoch")),
    ] {
        assert!(!is_delivered(&frame), "{reason}");
        fleet.relays[1].until(|page| value(page, &dropped(reason, fault)) == 1);
    }
    assert_eq!(fleet.value(1, "packets_from_relays_total"), 7);
    let answered = fleet.made(0, 30, b"no answer to whoever sends it");
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    socket.send(&answered).unwrap();
    assert!(socket.recv(&mut [0; 64]).is_err());
    fleet.stop();
}
