//! Streams over loopback, by a TLS client that is rustls alone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod tls;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::traffic::one;
use common::vitals::is_soak;
use common::{Client, Relay, eventually, prepare};
use lanrage_proto::datagram::{Kind, kind};
use lanrage_proto::frame::control::Message;
use lanrage_proto::frame::data::Delivered;
use lanrage_proto::frame::hint::Hint;
use lanrage_proto::ids::Destination;
use lanrage_proto::stream::Waiting;
use lanrage_relay::Settings;
use lanrage_relay::config::BackendSetting;
use tls::Stream;

fn start(dir: &std::path::Path) -> Relay {
    start_on(dir, BackendSetting::Auto)
}

fn start_on(dir: &std::path::Path, backend: BackendSetting) -> Relay {
    prepare(dir);
    let settings = Settings {
        backend: Some(backend),
        stream_listen: Some(vec!["127.0.0.1:0".parse().unwrap()]),
        ..Settings::default()
    };
    Relay::start_with(dir, settings)
}

fn at(relay: &Relay) -> SocketAddr {
    relay.started.streams[0]
}

fn value(page: &str, series: &str) -> u64 {
    let line = page.lines().find(|line| line.starts_with(&format!("lanrage_relay_{series} ")));
    let line = line.unwrap_or_else(|| panic!("no series {series}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// All identities hold once nothing is under way.
fn assert_no_skew(relay: &Relay) {
    eventually("all counts to add up", || {
        let page = relay.get("/metrics");
        ["shards", "binder", "sending"]
            .iter()
            .all(|part| value(&page, &format!("accounting_skew{{part=\"{part}\"}}")) == 0)
    });
}

fn closed(relay: &Relay, cause: &str) -> u64 {
    value(&relay.get("/metrics"), &format!("streams_closed_total{{cause=\"{cause}\"}}"))
}

fn mixed_party(backend: BackendSetting) {
    let dir = tempfile::tempdir().unwrap();
    let relay = start_on(dir.path(), backend);
    let (mut a, mut b) = (Stream::connect(at(&relay), dir.path(), 1), Client::new(relay.ipv4(), 2));
    let mut c = Stream::connect(at(&relay), dir.path(), 3);
    let leases = [a.bind(), b.bind(), c.bind()];
    assert!(leases[0].reflexive.ip().is_multicast(), "it stands for a stream");
    assert!(a.probe(&leases[0]) && b.probe(&leases[1]) && c.probe(&leases[2]));
    relay.until(|page| value(page, "leases{state=\"active\"}") == 3);

    a.send(&a.frame(&leases[0], one(2), b"stream to UDP"));
    let got = b.receive().unwrap();
    let (header, payload) = Delivered::decode(&got).unwrap();
    assert_eq!((header.source.number(), payload), (1, &b"stream to UDP"[..]));
    b.socket.send(&b.frame(&leases[1], one(1), b"UDP to stream")).unwrap();
    assert!(a.receive().unwrap().ends_with(b"UDP to stream"));
    a.send(&a.frame(&leases[0], one(3), b"stream to stream"));
    assert!(c.receive().unwrap().ends_with(b"stream to stream"));

    b.socket.send(&b.frame(&leases[1], Destination::Everyone, b"all by UDP")).unwrap();
    assert!(a.receive().unwrap().ends_with(b"all by UDP"));
    assert!(c.receive().unwrap().ends_with(b"all by UDP"));
    a.send(&a.frame(&leases[0], Destination::Everyone, b"all by stream"));
    assert!(b.receive().unwrap().ends_with(b"all by stream"));
    assert!(c.receive().unwrap().ends_with(b"all by stream"));

    a.send(&a.frame(&leases[0], one(9), b"nobody"));
    assert!(Hint::decode(&a.receive().unwrap()).is_ok());
    a.send(b"\x00\x01\x00\x00\x21\x12\xa4\x42 no STUN here");

    // Another's lease, from here: the stream is not its address.
    c.send(&a.frame(&leases[0], one(2), b"forged"));
    assert_eq!(kind(&c.receive().unwrap()), Kind::Hint);
    b.socket.send(&a.frame(&leases[0], one(2), b"forged")).unwrap();
    assert_eq!(kind(&b.receive().unwrap()), Kind::Hint);
    let page = relay.get("/metrics");
    let dropped =
        |reason: &str| format!("packets_dropped_total{{reason=\"{reason}\",fault=\"client\"}}");
    assert_eq!(value(&page, &dropped("address")), 2);
    assert_no_skew(&relay);

    let page = relay.get("/metrics");
    assert_eq!((value(&page, "streams"), value(&page, "streams_established_total")), (2, 2));
    eventually("nothing to wait", || {
        let page = relay.get("/metrics");
        let count = |event| value(&page, &format!("stream_packets_total{{event=\"{event}\"}}"));
        count("planned") > 0 && count("planned") == count("sent")
    });
    relay.stop();
}

#[test]
fn members_on_streams_and_on_udp_play_together_on_io_uring() {
    mixed_party(BackendSetting::IoUring);
}

#[test]
fn members_on_streams_and_on_udp_play_together_on_recvmmsg() {
    mixed_party(BackendSetting::Recvmmsg);
}

/// Make before break, both ways: for a while the lease is at both.
#[test]
fn a_lease_moves_to_a_stream_and_back_without_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    let relay = start(dir.path());
    let (mut udp, mut peer) = (Client::new(relay.ipv4(), 1), Client::new(relay.ipv4(), 2));
    let (lease, other) = (udp.bind(), peer.bind());
    assert!(udp.probe(&lease) && peer.probe(&other));
    let mut stream = Stream::connect(at(&relay), dir.path(), 1);

    let Some(Message::RebindChallenge(cookie)) = stream.control(&lease, Message::Rebind, 1) else {
        panic!("no challenge");
    };
    let answer = stream.control(&lease, Message::RebindAnswer(cookie), 2);
    assert!(matches!(answer, Some(Message::Rebound(address)) if address.ip().is_multicast()));
    peer.socket.send(&peer.frame(&other, one(1), b"by the stream")).unwrap();
    assert!(stream.receive().unwrap().ends_with(b"by the stream"));
    udp.socket.send(&udp.frame(&lease, one(2), b"still on its way")).unwrap();
    assert!(peer.receive().unwrap().ends_with(b"still on its way"));
    stream.send(&udp.frame(&lease, one(2), b"the new way"));
    assert!(peer.receive().unwrap().ends_with(b"the new way"));

    let Some(Message::RebindChallenge(cookie)) = udp.control(&lease, Message::Rebind, 3) else {
        panic!("no challenge");
    };
    let answer = udp.control(&lease, Message::RebindAnswer(cookie), 4);
    assert_eq!(answer, Some(Message::Rebound(udp.socket.local_addr().unwrap())));
    peer.socket.send(&peer.frame(&other, one(1), b"by UDP again")).unwrap();
    assert!(udp.receive().unwrap().ends_with(b"by UDP again"));
    stream.send(&udp.frame(&lease, one(2), b"left in the stream"));
    assert!(peer.receive().unwrap().ends_with(b"left in the stream"));
    drop(stream);
    assert!(udp.probe(&lease));
    assert_no_skew(&relay);
    relay.stop();
}

/// Who does not read loses its own packets, the oldest first, and nobody else's.
#[test]
fn a_stalled_reader_harms_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let relay = start(dir.path());
    let mut stalled = Stream::connect(at(&relay), dir.path(), 1);
    let mut reader = Stream::connect(at(&relay), dir.path(), 2);
    let mut sender = Client::new(relay.ipv4(), 3);
    let (lost, read, from) = (stalled.bind(), reader.bind(), sender.bind());
    assert!(stalled.probe(&lost) && reader.probe(&read) && sender.probe(&from));

    let full = "stream_packets_dropped_total{reason=\"full\"}";
    let mut number = 0_u32;
    let deadline = Instant::now() + Duration::from_secs(60);
    while value(&relay.get("/metrics"), full) < 200 {
        assert!(Instant::now() < deadline, "the queue never fills");
        for _ in 0..50 {
            number += 1;
            let mut payload = [0; 1400];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            sender.socket.send(&sender.frame(&from, one(1), &payload)).unwrap();
            sender.socket.send(&sender.frame(&from, one(2), &payload[..4])).unwrap();
            let got = reader.receive().unwrap();
            assert!(got.ends_with(&number.to_be_bytes()), "datagram {number} went missing");
        }
    }
    assert!(reader.probe(&read) && sender.probe(&from));

    // It reads again: what it missed is a gap before the newest.
    let mut got = Vec::new();
    while got.last() != Some(&number) {
        let datagram = stalled.receive().unwrap();
        got.push(u32::from_be_bytes(datagram[16..20].try_into().unwrap()));
    }
    assert!(got.is_sorted(), "in order");
    assert!(got.windows(2).any(|pair| pair[1] > pair[0] + 1), "the gap");
    assert!(stalled.probe(&lost), "and goes on");
    assert_no_skew(&relay);
    relay.stop();
}

/// A stream whose socket always had more to read never let the thread go, and all others waited.
#[test]
fn regression_a_stream_that_floods_leaves_others_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    let relay = start(dir.path());
    let mut flood = Stream::connect(at(&relay), dir.path(), 1);
    let mut other = Stream::connect(at(&relay), dir.path(), 2);
    let lease = other.bind();
    let (mut waiting, mut bytes) = (Waiting::new(0), Vec::new());
    (0..1000).for_each(|_| _ = waiting.push(b"no frame"));
    waiting.take(&mut bytes, usize::MAX);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                if flood.try_send_raw(&bytes).is_err() {
                    break;
                }
            }
        });
        let ask = || (0..100).all(|_| other.probe(&lease));
        let is_answered = catch_unwind(AssertUnwindSafe(ask)).unwrap_or(false);
        is_over.store(true, Ordering::Relaxed);
        assert!(is_answered);
    });
    assert_no_skew(&relay);
    relay.stop();
}

#[test]
fn what_is_no_stream_is_closed_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let relay = start(dir.path());
    let mut bystander = Stream::connect(at(&relay), dir.path(), 1);
    let lease = bystander.bind();

    // Garbage, an HTTP request, and TLS that does not offer the protocol.
    for garbage in [&[0xff; 300][..], b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n"] {
        let mut socket = TcpStream::connect(at(&relay)).unwrap();
        socket.write_all(garbage).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
        let mut answer = Vec::new();
        // An alert, then the end or a reset.
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.len() < garbage.len());
    }
    assert!(Stream::open(at(&relay), dir.path(), 2, b"h2").is_err());
    eventually("three failures", || closed(&relay, "tls") == 3);

    // Another key than the map's is not talked to.
    let other = tempfile::tempdir().unwrap();
    prepare(other.path());
    assert!(Stream::open(at(&relay), other.path(), 2, lanrage_proto::stream::ALPN).is_err());

    for length in [0, 1473, 65_535_u16] {
        let mut stream = Stream::connect(at(&relay), dir.path(), 2);
        stream.send_raw(&length.to_be_bytes());
        assert!(stream.receive().is_none(), "a length of {length} ends the stream");
    }
    eventually("three malformed", || closed(&relay, "malformed") == 3);
    assert!(bystander.probe(&lease));
    assert_no_skew(&relay);
    relay.stop();
}

/// Connections that say nothing, or a byte a second, are given up; meanwhile others are served.
#[test]
fn a_slow_loris_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let relay = start(dir.path());
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(at(&relay)).unwrap()).collect();
    let mut slow = TcpStream::connect(at(&relay)).unwrap();
    let mut served = Stream::connect(at(&relay), dir.path(), 1);
    let lease = served.bind();
    eventually("the slow to be given up", || {
        // The beginning of a TLS record, byte by byte.
        let _ = slow.write_all(&[0x16]);
        std::thread::sleep(Duration::from_millis(200));
        assert!(served.probe(&lease));
        closed(&relay, "handshake") + closed(&relay, "tls") == 41
    });
    assert_eq!(value(&relay.get("/metrics"), "streams"), 1);
    drop(silent);
    relay.stop();
}

/// Who says nothing for a minute, and who reads nothing for 20 s, gives its place back.
#[test]
fn silent_and_stalled_streams_are_closed() {
    if !is_soak() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let relay = start(dir.path());
    let _silent = Stream::connect(at(&relay), dir.path(), 1);
    let mut stalled = Stream::connect(at(&relay), dir.path(), 2);
    let lease = stalled.bind();
    let mut sender = Client::new(relay.ipv4(), 3);
    let from = sender.bind();
    assert!(stalled.probe(&lease) && sender.probe(&from));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(65) {
        sender.socket.send(&sender.frame(&from, one(2), &[7; 1400])).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!((closed(&relay, "stalled"), closed(&relay, "idle")), (1, 1));
    assert_eq!(value(&relay.get("/metrics"), "streams"), 0);
    assert_no_skew(&relay);
    relay.stop();
}

#[test]
fn one_network_cannot_take_every_place() {
    let dir = tempfile::tempdir().unwrap();
    let relay = start(dir.path());
    let mut served = Stream::connect(at(&relay), dir.path(), 1);
    let lease = served.bind();
    let crowd: Vec<_> = (0..400).map(|_| TcpStream::connect(at(&relay)).unwrap()).collect();
    let refused = |page: &str| {
        ["prefix_full", "prefix_rate"]
            .map(|reason| value(page, &format!("streams_refused_total{{reason=\"{reason}\"}}")))
            .iter()
            .sum::<u64>()
    };
    eventually("the crowd to be refused", || refused(&relay.get("/metrics")) >= 400 - 255);
    assert!(value(&relay.get("/metrics"), "streams") <= 256);
    assert!(served.probe(&lease));
    drop(crowd);
    eventually("the places to be free", || value(&relay.get("/metrics"), "streams") == 1);
    relay.stop();
}

/// A relay without streams has no port for them, and one that cannot bind it says so.
#[test]
fn streams_are_served_where_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let relay = Relay::start(dir.path(), BackendSetting::Auto);
    assert!(relay.started.streams.is_empty());
    assert_eq!(value(&relay.get("/metrics"), "streams_accepted_total"), 0);
    relay.stop();

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings {
        state_dir: Some(dir.path().to_owned()),
        listen: Some(vec!["127.0.0.1:0".parse().unwrap()]),
        stream_listen: Some(vec![taken.local_addr().unwrap()]),
        ..Settings::default()
    };
    let config = settings.resolve(None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = lanrage_relay::run(config, async || std::future::pending().await, |_| {});
    let failure = runtime.block_on(run).unwrap_err();
    assert_eq!(failure.exit_code(), 4);
    assert!(failure.to_string().contains("--stream-listen"), "{failure}");
}
