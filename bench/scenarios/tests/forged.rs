//! Forged and replayed frames at a live relay: each is counted under its own reason, none reaches a
//! member, and none puts a member out.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddrV4, UdpSocket};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lanrage_lab::{Host, LinkSpec, NatKind};
use lanrage_proto::api::TicketGrant;
use lanrage_proto::bytes::decode_base64;
use lanrage_proto::datagram::first_byte;
use lanrage_proto::frame::bind::{Bind, BindRequest, BindResult, Bound, Lease};
use lanrage_proto::frame::challenge::Challenge;
use lanrage_proto::frame::control::Message;
use lanrage_proto::frame::data::{SelfProbe, Sent};
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::frame::hint::Hint;
use lanrage_proto::frame::resume::Resume;
use lanrage_proto::frame::{Cookie, DATAGRAM_LEN_MAX, Nonce, VERSION};
use lanrage_proto::handshake::Initiator;
use lanrage_proto::stun::{self, TransactionId};
use lanrage_proto::{Destination, Handle, Member, RelayId, Tag};
use lanrage_scenarios::{Deployment, Flow, Plan, Player, Relay, RelayPlan, eventually};
use serde::Deserialize;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(10);
/// Less than it takes to notice a lost lease and to bind anew.
const GAP_MAX: Duration = Duration::from_millis(500);
/// Each forgery is sent this often, so that no stray datagram passes for it.
const COPIES: usize = 3;
/// No WireGuard message: a client that gets it drops and counts it.
const PAYLOAD: [u8; 48] = [0xee; 48];
/// A [`Flow`]'s datagram with its IPv4 and UDP headers.
const FLOW_PACKET_LEN: u64 = 20 + 8 + 120;

const DROPPED: &str = "lanrage_relay_packets_dropped_total";
const OUTCOMES: &str = "lanrage_relay_control_outcomes_total";
const REFUSED: &str = "lanrage_relay_binds_refused_total";

#[test]
fn each_forgery_is_counted_under_its_reason_and_reaches_nobody() {
    let mut lab = one_relay(4);
    let attacker = lab.lab.host("attacker", LinkSpec::direct()).unwrap();
    let server = lab.control.server().to_owned();
    lab.players[0].create_party("forged", &server).unwrap();
    let invite = lab.players[0].invite(2).unwrap();
    for player in [1, 2] {
        lab.players[player].join(&invite).unwrap();
    }
    lab.players[3].create_party("other", &server).unwrap();
    lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
    for player in [2, 3] {
        lab.players[player].stop_daemon().unwrap();
    }
    let relay = &lab.relays[0];
    let insider = Bare::bind(&lab.players[2], relay);
    let outsider = Bare::bind(&lab.players[3], relay);
    let stranger = socket(&attacker, relay);

    let victim = &lab.players[1];
    let number = Member::new(*victim.address().octets().last().unwrap()).unwrap();
    let before = [&lab.players[0], victim].map(|p| (p.bytes_received().unwrap(), intrusions(p)));
    let flow = Flow::start(&lab.players[0], victim, INTERVAL).unwrap();
    let forgeries = [
        data_forgeries(&insider, &outsider, &stranger, number),
        framing_forgeries(&stranger),
        control_forgeries(&insider, &stranger),
    ]
    .concat();
    for forgery in &forgeries {
        forgery.is_counted_at(relay);
    }
    let arrivals = flow.finish();
    let gap = arrivals.longest_gap();
    assert!(gap <= GAP_MAX, "{gap:?} without traffic beside the forgeries");
    let after = [&lab.players[0], victim].map(|p| (p.bytes_received().unwrap(), intrusions(p)));
    let flow_bytes = arrivals.received.len() as u64 * FLOW_PACKET_LEN;
    assert_eq!(after, [before[0], (before[1].0 + flow_bytes, before[1].1)]);

    // Who forges is told less than it sends, and that its own frame named no lease.
    for forger in [&stranger, &outsider.socket] {
        let told = waiting(forger);
        let by_it = forgeries.iter().filter(|forgery| std::ptr::eq(forgery.from, forger)).count();
        assert!((1..=by_it * COPIES).contains(&told.len()), "{} answers", told.len());
        assert!(told.iter().all(|datagram| Hint::decode(datagram).is_ok()), "{told:x?}");
    }

    // Both leases live, and what the relay does forward is seen by those who get it.
    outsider.echo();
    insider.echo();
    insider.socket.send(&frame(insider.header(Destination::One(number)))).unwrap();
    eventually("the member to count what it is sent", PATIENCE, || {
        Ok((intrusions(victim) == after[1].1 + 1).then_some(()))
    })
    .unwrap();
    assert_accounts_balance(relay);
}

#[test]
fn a_replayed_bind_evicts_nobody() {
    /// The relay repeats an answer for 5 s, and sweeps every second.
    const ANSWERS_KEPT: Duration = Duration::from_secs(7);

    let mut lab = one_relay(2);
    let attacker = lab.lab.host("attacker", LinkSpec::direct()).unwrap();
    let capture = lab.relays[0].host().capture("bind").unwrap();
    lab.form_party("replay").unwrap();
    lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
    let binds = captured_binds(&capture.stop().unwrap());
    assert!(binds.len() >= 2, "both members bind");
    let (relay, replays) = (&lab.relays[0], binds.len() as f64);

    eventually("the relay to count both leases", PATIENCE, || {
        Ok((relay.metric("lanrage_relay_leases", "state=\"active\"")? == 2.0).then_some(()))
    })
    .unwrap();
    let leases = lease_counts(relay);
    let there = Flow::start(&lab.players[0], &lab.players[1], INTERVAL).unwrap();
    let back = Flow::start(&lab.players[1], &lab.players[0], INTERVAL).unwrap();
    // As captured, from the members' own addresses and ports: the same answer again, or a refusal
    // of those whose answer the relay has forgotten.
    let answered = || {
        let repeated = relay.metric(OUTCOMES, "outcome=\"repeated\"")?;
        anyhow::Ok(repeated + relay.metric(REFUSED, "reason=\"replayed\"")?)
    };
    let before = answered().unwrap();
    binds.iter().for_each(|bind| bind.send_as_captured(&attacker, relay));
    eventually("the replays to be answered", PATIENCE, || {
        Ok((answered()? == before + replays).then_some(()))
    })
    .unwrap();
    // From another address the cookie does not hold.
    let stranger = socket(&attacker, relay);
    let bad_cookies = relay.metric(OUTCOMES, "outcome=\"bad_cookie\"").unwrap();
    binds.iter().for_each(|bind| assert!(stranger.send(bind.frame()).is_ok()));
    eventually("the strangers' replays to be dropped", PATIENCE, || {
        let dropped = relay.metric(OUTCOMES, "outcome=\"bad_cookie\"")? - bad_cookies;
        Ok((dropped == replays).then_some(()))
    })
    .unwrap();
    assert_eq!(waiting(&stranger), Vec::<Vec<u8>>::new());
    // When the answers are forgotten the stamps are not.
    sleep(ANSWERS_KEPT);
    let refused = relay.metric(REFUSED, "reason=\"replayed\"").unwrap();
    binds.iter().for_each(|bind| bind.send_as_captured(&attacker, relay));
    eventually("the late replays to be refused", PATIENCE, || {
        let more = relay.metric(REFUSED, "reason=\"replayed\"")? - refused;
        Ok((more == replays).then_some(()))
    })
    .unwrap();
    for (way, flow) in [("there", there), ("back", back)] {
        let gap = flow.finish().longest_gap();
        assert!(gap <= GAP_MAX, "{gap:?} without traffic {way}");
    }
    assert_eq!(lease_counts(relay), leases, "no lease begins, moves or ends");
    assert_accounts_balance(relay);
}

#[test]
fn two_instances_of_a_device_are_told_and_one_plays_on() {
    /// More would be a lease that two clients take from each other for ever.
    const TAKEOVERS_MAX: f64 = 3.0;

    let mut lab = one_relay(3);
    let server = lab.control.server().to_owned();
    lab.players[0].create_party("twins", &server).unwrap();
    let invite = lab.players[0].invite(1).unwrap();
    lab.players[1].join(&invite).unwrap();
    lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
    let relay_name = lab.relays[0].name().to_owned();
    let taken_over = |relay: &Relay| {
        relay.metric("lanrage_relay_leases_ended_total", "cause=\"replaced\"").unwrap()
    };
    let before = taken_over(&lab.relays[0]);

    lab.players[2].stop_daemon().unwrap();
    copy_state(&lab.players[1], &lab.players[2]);
    lab.players[2].start_daemon().unwrap();
    let relay = &lab.relays[0];
    eventually("the relay to refuse an instance", PATIENCE, || {
        Ok((relay.metric(REFUSED, "reason=\"duplicate\"")? > 0.0).then_some(()))
    })
    .unwrap();
    let (friend, twins) = (&lab.players[0], &lab.players[1..]);
    eventually("an instance to be told", PATIENCE, || {
        let told = twins.iter().filter_map(|twin| twin.status().ok());
        let told = told.filter(|status| status["relays"][0]["refusal"] == "duplicate").count();
        Ok((told > 0).then_some(()))
    })
    .unwrap();

    let plays = |twin: &&Player| {
        twin.has_lease_at(&relay_name).unwrap_or(false)
            && twin.ping(friend.address(), Duration::from_secs(1)).is_ok()
    };
    let settled = Instant::now();
    while settled.elapsed() < Duration::from_secs(5) {
        assert!(twins.iter().any(|twin| plays(&twin)), "neither instance plays");
        friend.ping(twins[0].address(), Duration::from_secs(1)).unwrap();
    }
    let takeovers = taken_over(relay) - before;
    assert!(takeovers <= TAKEOVERS_MAX, "{takeovers} takeovers within a minute");
    assert_accounts_balance(relay);
}

fn one_relay(players: usize) -> Deployment {
    let plan = Plan {
        relays: vec![RelayPlan::default()],
        ..Plan::behind(NatKind::PortRestrictedCone, players)
    };
    Deployment::start(&plan).unwrap()
}

/// Frames that look like data, against each check in turn.
fn data_forgeries<'a>(
    insider: &'a Bare,
    outsider: &'a Bare,
    stranger: &'a UdpSocket,
    victim: Member,
) -> Vec<Forgery<'a>> {
    let honest = insider.header(Destination::One(victim));
    let Lease { handle, tag, .. } = *insider.lease;
    let reused = Handle::new(handle.index(), handle.generation().wrapping_add(1));
    let outside = Handle::new((1 << Handle::INDEX_BITS) - 1, 0);
    let numbered = |source| Sent { source, ..honest };
    let to = |destination| Sent { destination, ..honest };
    let mut forgeries = Vec::new();
    let mut add = |from, reason, sents: &[Sent]| {
        forgeries.extend(sents.iter().map(|sent| dropped(from, reason, frame(*sent))));
    };
    let own = &insider.socket;
    add(own, "source", &[numbered(victim.number().into()), numbered(0), numbered(0x1000)]);
    add(own, "flags", &[Sent { flags: 1, ..honest }, Sent { flags: 0x80, ..honest }]);
    add(own, "destination", &[to(0), to(251), to(0x0101), to(0xfffe)]);
    add(own, "no_peer", &[to(250)]);
    let foreign = Sent { handle: outsider.lease.handle, ..honest };
    let guessed = Sent { tag: Tag(tag.0 ^ 1), ..honest };
    add(own, "tag", &[foreign, guessed, Sent { tag: Tag(0), ..honest }]);
    add(own, "handle", &[Sent { handle: reused, ..honest }, Sent { handle: outside, ..honest }]);
    // Who has overheard handle and tag, a member of another party included, has not the address.
    add(stranger, "address", &[honest]);
    add(&outsider.socket, "address", &[honest]);
    forgeries
}

/// Datagrams that are no frame, cut or stretched ones, and frames that only relays send.
fn framing_forgeries(stranger: &UdpSocket) -> Vec<Forgery<'_>> {
    let of_len = |first: u8, len: usize| {
        let mut datagram = vec![0; len];
        datagram[0] = first;
        datagram
    };
    let lengths = [
        (first_byte::DATA, 15),
        (first_byte::DATA, DATAGRAM_LEN_MAX + 1),
        (first_byte::HELLO, Hello::LEN - 1),
        (first_byte::HELLO, Hello::LEN + 1),
        (first_byte::BIND, Bind::LEN - 1),
        (first_byte::BIND, DATAGRAM_LEN_MAX),
        (first_byte::CONTROL, 16),
        (first_byte::RESUME, 56),
    ];
    let relay_only = [
        first_byte::CHALLENGE,
        first_byte::BOUND,
        first_byte::UNSUPPORTED,
        first_byte::HINT,
        first_byte::RESUMED,
    ];
    let request = stun::encode_request(TransactionId(random()));
    let (id, client) = (TransactionId(random()), "192.0.2.1:9".parse().unwrap());
    let answer = stun::encode_response(id, client, &mut [0; stun::RESPONSE_LEN_MAX]).to_vec();
    let cut = request[..request.len() - 1].to_vec();
    let stretched = [request.as_slice(), &[0; 4]].concat();
    let unknown = [0x00, 0x01, 0x04, 0xef, 0xfc, 0xff];
    let lengths = lengths.map(|(first, len)| dropped(stranger, "length", of_len(first, len)));
    let nothing = dropped(stranger, "length", Vec::new());
    let relay_only =
        relay_only.map(|first| dropped(stranger, "relay_only_type", of_len(first, 64)));
    let unknown = unknown.map(|first| dropped(stranger, "unknown_type", of_len(first, 148)));
    let stun =
        [answer, cut, stretched].map(|datagram| dropped(stranger, "stun_malformed", datagram));
    let mesh = [0xfa, 0xfb].map(|first| dropped(stranger, "mesh_malformed", of_len(first, 16)));
    let all = lengths.into_iter().chain([nothing]).chain(relay_only).chain(unknown);
    all.chain(stun).chain(mesh).collect()
}

/// Well-formed frames for the binder that nothing stands behind.
fn control_forgeries<'a>(insider: &Bare, stranger: &'a UdpSocket) -> Vec<Forgery<'a>> {
    let (nonce, cookie) = (Nonce(random()), Cookie(random()));
    let empty_range = Hello { version_min: VERSION + 1, version_max: VERSION, nonce };
    let bind = Bind { nonce, cookie, noise: &[7; Bind::NOISE_LEN] };
    let Lease { handle, resumption_ticket, .. } = insider.lease.as_ref();
    let resume = Resume::new(nonce, cookie, resumption_ticket, &random(), RelayId(1));
    let unheld = Handle::new((1 << Handle::INDEX_BITS) - 1, 0);
    let counted = |outcome, frame| Forgery { from: stranger, metric: OUTCOMES, outcome, frame };
    vec![
        counted("malformed", empty_range.encode()),
        counted("bad_cookie", bind.encode()),
        counted("bad_cookie", resume.encode()),
        counted("not_authentic", Message::Release.seal(&random(), *handle, u64::MAX)),
        counted("not_authentic", Message::Rebind.seal(&random(), *handle, u64::MAX)),
        counted("no_lease", Message::Release.seal(&random(), unheld, 1)),
    ]
}

/// A datagram that a relay must drop, and under which label of which metric.
#[derive(Clone)]
struct Forgery<'a> {
    from: &'a UdpSocket,
    metric: &'static str,
    outcome: &'static str,
    frame: Vec<u8>,
}

fn dropped<'a>(from: &'a UdpSocket, outcome: &'static str, frame: Vec<u8>) -> Forgery<'a> {
    Forgery { from, metric: DROPPED, outcome, frame }
}

impl Forgery<'_> {
    /// Sends it, and sees it counted by this label and by no other.
    fn is_counted_at(&self, relay: &Relay) {
        let before = relay.metrics().unwrap();
        for _ in 0..COPIES {
            self.from.send(&self.frame).unwrap();
        }
        let rise = || -> anyhow::Result<BTreeMap<String, f64>> {
            let mut samples = relay.metrics()?;
            samples.retain(|name, value| {
                *value -= before.get(name).unwrap_or(&0.0);
                name.starts_with(self.metric) && *value > 0.0
            });
            Ok(samples)
        };
        let counted = eventually("the relay to count a forgery", PATIENCE, || {
            let rise = rise()?;
            Ok((rise.values().sum::<f64>() >= COPIES as f64).then_some(rise))
        });
        let head = &self.frame[..self.frame.len().min(16)];
        let counted = counted.unwrap_or_else(|e| panic!("{e:#}: {} {head:x?}", self.outcome));
        let counted: Vec<(String, f64)> = counted.into_iter().collect();
        let label = format!("=\"{}\"", self.outcome);
        assert!(
            matches!(&counted[..], [(name, copies)]
                if name.contains(&label) && *copies == COPIES as f64),
            "{} {head:x?} is counted as {counted:?}",
            self.outcome
        );
    }
}

/// A member without a daemon: a socket and a lease.
struct Bare {
    socket: UdpSocket,
    member: Member,
    lease: Box<Lease>,
}

/// What a daemon keeps of a membership, as far as a lease needs it.
#[derive(Deserialize)]
struct Membership {
    tunnel: String,
    ticket: TicketGrant,
}

impl Bare {
    /// Binds as the one membership of a player whose daemon is stopped.
    fn bind(player: &Player, relay: &Relay) -> Self {
        let mut parties = fs::read_dir(player.state_dir().join("parties")).unwrap();
        let record = parties.next().unwrap().unwrap().path();
        let membership: Membership = lanrage_state::read(&record).unwrap().unwrap();
        let private = decode_base64(&membership.tunnel).unwrap();
        let ticket = membership.ticket.ticket;
        let member = ticket.body.member;

        let socket = socket(player.host(), relay);
        let nonce = Nonce(random());
        let hello = Hello { version_min: VERSION, version_max: VERSION, nonce };
        let challenge = ask(&socket, &hello.encode());
        let Challenge { certificate, cookie, .. } = Challenge::decode(&challenge).unwrap();
        let request = BindRequest { ticket, instance: random(), stamp: 1 };
        let place = (nonce, cookie, certificate.relay);
        let (mut initiator, noise) =
            Initiator::start(&private, &certificate.key, place, &request.encode(), random())
                .unwrap();
        let bound = ask(&socket, &Bind { nonce, cookie, noise: &noise }.encode());
        let bound = Bound::decode(&bound).unwrap();
        let lease = match BindResult::decode(&initiator.finish(bound.noise).unwrap()).unwrap() {
            BindResult::Lease(lease) => lease,
            BindResult::Refused { reason, .. } => panic!("{}: {reason:?}", player.name()),
        };
        let bare = Self { socket, member, lease };
        bare.echo();
        bare
    }

    fn header(&self, destination: Destination) -> Sent {
        Sent::new(RelayId(0), destination, self.member, self.lease.handle, self.lease.tag)
    }

    /// A frame to itself comes back: the lease is active. What else comes is passed over.
    fn echo(&self) {
        let probe = SelfProbe { sequence: 1, cookie: u64::from_be_bytes(random()) }.encode();
        let header = self.header(Destination::One(self.member)).encode();
        let mut answer = ask(&self.socket, &[header.as_slice(), &probe].concat());
        while !answer.ends_with(&probe) {
            answer = receive(&self.socket);
        }
    }
}

/// A captured BIND with its IPv4 and UDP headers.
struct CapturedBind(Vec<u8>);

impl CapturedBind {
    const HEADERS_LEN: usize = 20 + 8;
    const PACKET_LEN: usize = Self::HEADERS_LEN + Bind::LEN;

    fn frame(&self) -> &[u8] {
        &self.0[Self::HEADERS_LEN..]
    }

    /// Sends it from `host` under the address and port it was captured with.
    fn send_as_captured(&self, host: &Host, relay: &Relay) {
        // IPPROTO_RAW: the caller writes the IP header (raw(7)).
        let raw = host.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))));
        let relay = SockAddr::from(SocketAddrV4::new(*relay.address().ip(), 0));
        let sent = raw.unwrap().unwrap().send_to(&self.0, &relay).unwrap();
        assert_eq!(sent, self.0.len());
    }
}

fn captured_binds(pcap: &Path) -> Vec<CapturedBind> {
    const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
    const UDP: u8 = 17;
    let is_bind = |packet: &&[u8]| {
        packet[0] == IPV4_WITHOUT_OPTIONS
            && packet[9] == UDP
            && Bind::decode(&packet[CapturedBind::HEADERS_LEN..]).is_ok()
    };
    let file = fs::read(pcap).unwrap();
    let packets = file.windows(CapturedBind::PACKET_LEN).filter(is_bind);
    let without_checksum = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        // What was captured is what the sender left to its NIC; 0 is none (RFC 768).
        packet[26..28].fill(0);
        CapturedBind(packet)
    };
    packets.map(without_checksum).collect()
}

fn socket(host: &Host, relay: &Relay) -> UdpSocket {
    let socket = host.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    socket.connect(relay.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn ask(socket: &UdpSocket, question: &[u8]) -> Vec<u8> {
    socket.send(question).unwrap();
    receive(socket)
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut datagram = vec![0; DATAGRAM_LEN_MAX];
    let length = socket.recv(&mut datagram).unwrap();
    datagram.truncate(length);
    datagram
}

/// All that has come to a socket.
fn waiting(socket: &UdpSocket) -> Vec<Vec<u8>> {
    socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; DATAGRAM_LEN_MAX];
    let received =
        std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()));
    let received = received.collect();
    socket.set_nonblocking(false).unwrap();
    received
}

fn frame(header: Sent) -> Vec<u8> {
    [header.encode().as_slice(), &PAYLOAD].concat()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// What has reached a player from the relay without its asking.
fn intrusions(player: &Player) -> u64 {
    const REASONS: [&str; 10] = [
        "unknown_source",
        "unknown_kind",
        "malformed",
        "unasked",
        "hint",
        "not_for_us",
        "unknown_member",
        "unknown_index",
        "not_authentic",
        "self_probe",
    ];
    REASONS.iter().map(|reason| player.dropped(reason).unwrap()).sum()
}

/// How many leases have begun, become active and ended, by cause, and how many there are.
fn lease_counts(relay: &Relay) -> BTreeMap<String, f64> {
    let mut counts = relay.metrics().unwrap();
    counts.retain(|name, _| name.starts_with("lanrage_relay_leases"));
    assert!(!counts.is_empty());
    counts
}

fn assert_accounts_balance(relay: &Relay) {
    let mut skew = relay.metrics().unwrap();
    skew.retain(|name, _| name.starts_with("lanrage_relay_accounting_skew"));
    assert_eq!(skew.len(), 3, "shards, sending and binder: {skew:?}");
    assert!(skew.values().all(|skew| *skew == 0.0), "{skew:?}");
}

/// Makes `to` another instance of the device that `from` is.
fn copy_state(from: &Player, to: &Player) {
    let (from, to) = (from.state_dir(), to.state_dir());
    fs::copy(from.join("device"), to.join("device")).unwrap();
    for party in fs::read_dir(from.join("parties")).unwrap() {
        let party = party.unwrap();
        fs::copy(party.path(), to.join("parties").join(party.file_name())).unwrap();
    }
}
