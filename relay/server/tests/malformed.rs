//! Ten million damaged datagrams at the real program, by UDP and by streams, with live leases beside.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "what it took is worth seeing")]

mod common;
mod tls;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;

use common::mutate::Mutator;
use common::namespace::in_a_namespace;
use common::traffic::{Flow, one, skew};
use common::vitals::is_soak;
use common::{Client, Relay, bind_frame, eventually, prepare};
use lanrage_proto::datagram::{Kind, first_byte, kind};
use lanrage_proto::frame::Nonce;
use lanrage_proto::frame::bind::Lease;
use lanrage_proto::frame::control::Message;
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::ids::{Destination, RelayId, SessionId};
use lanrage_proto::stun::{TransactionId, encode_request};
use quinn_udp::{Transmit, UdpSocketState};
use tls::Stream;

/// Members 1 and 2 exchange a flow, 3 to 6 are asked after every burst whether their leases serve.
const LIVE: u8 = 6;
const ATTACKERS: u8 = 16;
const BURST: usize = 96;
/// A STUN answer names the asker's address: 20 B of header and at most 24 B of attribute, beside the
/// software's name.
const STUN_ANSWER_MAX: usize = 128;
/// What the process may still touch for the first time after the warm-up: the binder's queues, 16,896
/// places of 700 B, its answers, and the pools of receive buffers of three threads.
const RESIDENT_GROWTH_KIB: u64 = 32 << 10;
/// Over ten million: a leak of a byte each would be 9.5 MiB.
const RESIDENT_GROWTH_SOAK_KIB: u64 = 2 << 10;

/// Somebody with an address, a cookie and bad intentions.
struct Attacker {
    socket: UdpSocket,
    /// With receive offload, so that its answers cannot be told apart.
    trains: UdpSocket,
    frames: Vec<Vec<u8>>,
    /// Lengths of questions, by what an answer repeats of them.
    asked: BTreeMap<Vec<u8>, usize>,
    /// Those before, whose answers may be late.
    former: BTreeMap<Vec<u8>, usize>,
}

impl Attacker {
    fn new(relay: SocketAddr, number: u8, live: &[(Client, Lease)]) -> Self {
        let ip = IpAddr::V4(Ipv4Addr::new(127, 1, number, 1));
        let mut client = Client::at(ip, relay, 100 + number);
        client.session = SessionId(0xbad0 + u64::from(number));
        let lease = client.bind();
        let (resume, _) = client.resume(&lease);
        let challenge = client.challenge();
        let (bind, _) = bind_frame(&challenge, (client.session, client.member), 2);
        let mut frames = vec![resume, bind, challenge.encode()];
        let hello = Hello { version_min: 1, version_max: 1, nonce: Nonce([number; 16]) };
        frames.push(hello.encode().to_vec());
        frames.push(encode_request(TransactionId([number; 12])));
        for message in [Message::Rebind, Message::RebindAnswer(challenge.cookie), Message::Release]
        {
            frames.push(message.seal(&lease.key_to_relay, lease.handle, 9));
        }
        for first in [first_byte::MESH, first_byte::MESH_ABSENT, first_byte::HINT] {
            frames.push([&[first, 1, 0, 9], &[number; 60][..]].concat());
        }
        // Its own lease is released soon; those of others have other addresses.
        for (other, theirs) in live {
            frames.push(other.frame(theirs, one(1), b"forged"));
            frames.push(other.frame(theirs, Destination::Everyone, &[7; 600]));
            frames.push(Message::Release.seal(&lease.key_to_relay, theirs.handle, 1 << 40));
            frames.push(other.frame_by(RelayId(9), theirs, one(2), b"elsewhere"));
        }
        frames.push(client.frame(&lease, one(1), b"its own"));
        let trains = UdpSocket::bind((ip, 0)).unwrap();
        trains.connect(relay).unwrap();
        Self {
            socket: client.socket,
            trains,
            frames,
            asked: BTreeMap::new(),
            former: BTreeMap::new(),
        }
    }

    fn attack(&mut self, mutator: &mut Mutator) {
        if mutator.below(8) == 0 {
            return self.attack_by_train(mutator);
        }
        for _ in 0..BURST {
            let datagram = mutator.next(&self.frames);
            self.note(&datagram);
            // A kernel that has no room is part of it.
            let _ = self.socket.send(&datagram);
        }
    }

    /// Segments of one size, good and bad, in one datagram of the kernel's.
    fn attack_by_train(&mut self, mutator: &mut Mutator) {
        let size = 1 + mutator.below(300);
        let state = UdpSocketState::new((&self.trains).into()).unwrap();
        let count = BURST.min(state.max_gso_segments());
        let mut train = Vec::new();
        for _ in 0..count {
            let mut datagram = mutator.next(&self.frames);
            datagram.resize(size, 0);
            train.extend(datagram);
        }
        let transmit = Transmit {
            destination: self.socket.peer_addr().unwrap(),
            ecn: None,
            contents: &train,
            segment_size: Some(size),
            src_ip: None,
        };
        let _ = state.try_send((&self.trains).into(), &transmit);
    }

    fn note(&mut self, datagram: &[u8]) {
        let kind = kind(datagram);
        let keys = if kind == Kind::Data {
            [Some(&b"data"[..]), datagram.get(8..16)]
        } else if kind == Kind::Control {
            [Some(&b"control"[..]), datagram.get(4..8)]
        } else {
            [datagram.get(4..20), None]
        };
        for key in keys.into_iter().flatten() {
            let len = self.asked.entry(key.to_vec()).or_default();
            *len = datagram.len().max(*len);
        }
    }

    /// No answer is larger than its question.
    fn judge(&mut self) {
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        while let Ok(len) = self.socket.recv(&mut buffer) {
            let answer = &buffer[..len];
            let key = match kind(answer) {
                Kind::Stun => {
                    assert!(len <= STUN_ANSWER_MAX, "{len}");
                    continue;
                }
                Kind::Data => b"data",
                Kind::Control => &b"control"[..],
                Kind::Hint => &answer[4..12],
                Kind::Challenge
                | Kind::Bound
                | Kind::Resumed
                | Kind::Unsupported
                | Kind::MeshAbsent => &answer[4..20],
                unasked
                @ (Kind::Hello | Kind::Bind | Kind::Resume | Kind::Mesh | Kind::Unknown) => {
                    panic!("an answer of kind {unasked:?}")
                }
            };
            let asked = self.asked.get(key).max(self.former.get(key)).copied();
            let asked = asked.unwrap_or_else(|| panic!("{answer:02x?} to nothing"));
            assert!(len <= asked, "{len} bytes to {asked}: {answer:02x?}");
        }
        if self.asked.len() > 20_000 {
            self.former = std::mem::take(&mut self.asked);
        }
    }
}

/// Bytes that are no TLS, and datagrams that are none inside of it.
fn attack_by_streams(relay: &Relay, dir: &Path, attacker: &Attacker, mutator: &mut Mutator) {
    let at = relay.started.streams[0];
    let mut raw = TcpStream::connect(at).unwrap();
    let _ = raw.write_all(&mutator.next(&attacker.frames));
    drop(raw);
    let mut stream = Stream::connect(at, dir, 99);
    for _ in 0..BURST {
        let datagram = mutator.next(&attacker.frames);
        if !datagram.is_empty() && datagram.len() <= 1_472 {
            stream.send(&datagram);
        }
    }
}

fn withstands(backend: &'static str) {
    let wanted = if is_soak() { 10_000_000.0 } else { 100_000.0 };
    in_a_namespace(move || {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let mut relay = Relay::spawn(
            dir.path(),
            &["--backend", backend, "--leases", "1024", "--stream-listen", "127.0.0.1:443"],
        );
        relay.started.streams = vec!["127.0.0.1:443".parse().unwrap()];
        let live: Vec<_> = (1..=LIVE)
            .map(|member| {
                let mut client = Client::new(relay.ipv4(), member);
                let lease = client.bind();
                assert!(client.probe(&lease));
                (client, lease)
            })
            .collect();
        let flow = Flow::start(&live[0].0, &live[0].1, one(2), &[&live[1].0]);
        let mut attackers: Vec<_> =
            (1..=ATTACKERS).map(|number| Attacker::new(relay.ipv4(), number, &live)).collect();
        let mut mutator = Mutator::new(0x1a4);
        let received = |relay: &Relay| relay.page()["lanrage_relay_packets_received_total"];
        let begun = received(&relay);
        let mut warm = None;
        let mut bursts = 0;
        loop {
            for attacker in &mut attackers {
                attacker.attack(&mut mutator);
                for (client, lease) in &live[2..] {
                    assert!(
                        client.probe(lease),
                        "member {} after {bursts} bursts",
                        client.member.number()
                    );
                }
                attacker.judge();
                bursts += 1;
            }
            // Its lease ends unless it says that it is there.
            let (sink, lease) = &live[1];
            sink.socket.send(&sink.frame(lease, one(2), b"here")).unwrap();
            if bursts % 256 == 0 {
                attack_by_streams(&relay, dir.path(), &attackers[0], &mut mutator);
            }
            let so_far = received(&relay) - begun;
            if warm.is_none() && so_far >= wanted / 4.0 {
                warm = Some(relay.vitals());
            }
            if so_far >= wanted {
                break;
            }
        }
        let (warm, end) = (warm.unwrap(), relay.vitals());
        println!("{bursts} bursts: {warm:?}, then {end:?}");
        let growth = end.resident_kib.saturating_sub(warm.resident_kib);
        let bound = if is_soak() { RESIDENT_GROWTH_SOAK_KIB } else { RESIDENT_GROWTH_KIB };
        assert!(growth <= bound, "{growth} KiB more");
        assert_eq!(end.threads, warm.threads);
        assert!(flow.finish() > 0);
        for (client, lease) in &live {
            client
                .socket
                .send(&client.frame(lease, one(client.member.number()), b"probe"))
                .unwrap();
            let is_there =
                std::iter::from_fn(|| client.receive()).any(|got| got.ends_with(b"probe"));
            assert!(is_there, "member {}", client.member.number());
        }
        eventually("skew 0", || skew(&relay.page()) == 0.0);
        relay.stop();
    });
}

#[test]
fn malformed_datagrams_harm_nobody_on_io_uring() {
    withstands("io_uring");
}

#[test]
fn malformed_datagrams_harm_nobody_on_recvmmsg() {
    withstands("recvmmsg");
}
