//! Every metric the relay exports is moved: by this story, or by a test that is named here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use common::namespace::{in_a_namespace, run};
use common::traffic::one;
use common::{Client, RELAY, Relay, eventually, prepare, unix_s};
use lanrage_proto::frame::bind::{BindResult, Lease, Refusal};
use lanrage_proto::frame::control::Message;
use lanrage_proto::frame::data::Sent;
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::frame::resume::{Resume, Resumed};
use lanrage_proto::frame::{Cookie, Nonce};
use lanrage_proto::ids::{Destination, Handle, KeyId, PoolId, RelayId, SessionId, Tag};
use lanrage_proto::signed::TicketBody;
use lanrage_proto::stun::{TransactionId, encode_request};
use lanrage_relay::Settings;
use rustix::process::Signal;

/// More than a shard copies in one pass, and one for whom nothing is copied.
const MEMBERS: u8 = 66;
/// Of bursts until a budget is used up.
const BURSTS_MAX: usize = 500;

/// What no story of a few seconds on one host moves, by the test that does. What stands here without
/// a label is all of a metric that the story has not moved.
const MOVED_ELSEWHERE: [(&str, &str); 38] = [
    ("accounting_skew", "nothing: it must read 0"),
    ("packets_forwarded_total{to=\"relay\"", "mesh.rs: members_at_two_relays_reach_one_another"),
    ("packets_from_relays_total", "mesh.rs: members_at_two_relays_reach_one_another"),
    ("mesh_absent_total", "mesh.rs: members_at_two_relays_reach_one_another"),
    ("packets_dropped_total{reason=\"mesh_", "mesh.rs: bad_frames_between_relays_are_counted"),
    ("upgrades_total", "handover: upgrades_on_io_uring_lose_nothing and others"),
    ("streams", "streams: members_on_streams_and_on_udp_play_together"),
    ("streams_accepted_total", "streams: members_on_streams_and_on_udp_play_together"),
    ("streams_established_total", "streams: members_on_streams_and_on_udp_play_together"),
    ("stream_packets_total", "streams: members_on_streams_and_on_udp_play_together"),
    ("stream_packets_dropped_total", "streams: a_stalled_reader_harms_nobody_else"),
    ("streams_refused_total", "streams: one_network_cannot_take_every_place; gate: its unit tests"),
    ("streams_closed_total", "streams: a_slow_loris_is_given_up and others"),
    ("broadcasts_cut_total", "regression_broadcasts_that_wait_are_held_to_their_senders_rate"),
    (
        "control_outcomes_total{outcome=\"budget\"",
        "a_flood_of_hellos_starves_neither_binds_nor_control",
    ),
    ("packets_dropped_total{reason=\"table_busy\"", "lanrage-relay-table: loom, storm"),
    ("packets_dropped_total{reason=\"broadcast_backlog\"", "a_large_party_is_served_in_passes"),
    ("packets_dropped_total{reason=\"control_queue\"", "a_full_binder_queue_is_a_counted_drop"),
    ("packets_dropped_total{reason=\"egress_share\"", "lanrage-relay-core: egress"),
    ("packets_dropped_total{reason=\"stun_off\"", "stun_can_be_switched_off"),
    ("packets_dropped_total{reason=\"truncated\"", "a_truncated_arrival_is_counted"),
    ("packets_dropped_total{reason=\"malformed_address\"", "address, arrival: their unit tests"),
    ("broadcast_copies_torn_total", "lanrage-relay-table: loom, storm"),
    ("send_failures_total", "failed_sends_are_counted_by_kind_and_hold_up_nobody"),
    ("receive_rearms_total", "runs_out_of_buffers_and_recovers"),
    ("queues_shortened_total", "a_queue_that_stands_is_shortened_until_it_is_gone"),
    ("gso_events_total", "eio_sends_the_train_again_and_stops_trying and others of gso"),
    (
        "control_outcomes_total{outcome=\"no_certificate\"",
        "without_a_certificate_nobody_is_challenged",
    ),
    (
        "binds_refused_total{reason=\"revoked\"",
        "a_revocation_ends_leases_and_a_later_generation_outlives_it",
    ),
    ("binds_refused_total{reason=\"full\"", "each_refusal_has_its_reason and others of binding"),
    ("leases_ended_total{cause=\"idle\"", "a_lease_ends_idle_released_expired"),
    (
        "leases_ended_total{cause=\"revoked\"",
        "a_revocation_ends_leases_and_a_later_generation_outlives_it",
    ),
    ("binder_queue", "nothing lasts there while the binder runs"),
    ("revocations", "lanrage-relay: a_relay_enrols_and_follows_control"),
    ("control_connected", "lanrage-relay: a_relay_enrols_and_follows_control"),
    ("control_word_age_seconds", "lanrage-relay: a_relay_enrols_and_follows_control"),
    ("gso_mode", "segmentation_offload_is_switched_live_and_a_log_that_is_not_there_is_not"),
    ("packets_joined_total", "arrivals_from_many_sources_are_joined"),
];

/// What was other than 0 on any page.
static MOVED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Every series of a page, without the common prefix.
struct Page(BTreeMap<String, f64>);

impl Page {
    fn of(relay: &Relay) -> Self {
        Self::parse(&relay.get("/metrics"))
    }

    fn parse(text: &str) -> Self {
        let series = text.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix("lanrage_relay_")?.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().unwrap()))
        });
        let page = Self(series.collect());
        let moved = page.0.iter().filter(|(_, value)| **value != 0.0);
        MOVED.lock().unwrap().extend(moved.map(|(series, _)| series.clone()));
        page
    }

    fn value(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("no series {series}"))
    }

    fn outcome(&self, label: &str) -> f64 {
        self.value(&format!("control_outcomes_total{{outcome=\"{label}\"}}"))
    }

    fn dropped(&self, reason: &str) -> f64 {
        let start = format!("packets_dropped_total{{reason=\"{reason}\"");
        self.sum(|series| series.starts_with(&start))
    }

    fn sum(&self, is_wanted: impl Fn(&str) -> bool) -> f64 {
        self.0.iter().filter(|(series, _)| is_wanted(series)).map(|(_, value)| value).sum()
    }
}

/// Scrapes until the page is as wanted.
fn until(relay: &Relay, is_wanted: impl Fn(&Page) -> bool) -> Page {
    Page::parse(&relay.until(|text| is_wanted(&Page::parse(text))))
}

/// Repeats a burst until the page shows what it is to cause.
fn burst_until(relay: &Relay, mut burst: impl FnMut(), is_wanted: impl Fn(&Page) -> bool) {
    for _ in 0..BURSTS_MAX {
        burst();
        if is_wanted(&Page::of(relay)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{BURSTS_MAX} bursts were not enough:\n{}", relay.get("/metrics"));
}

/// By the program, in a namespace where things go wrong.
#[test]
fn every_metric_moves() {
    in_a_namespace(every_metric_moves_there);
}

fn every_metric_moves_there() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let relay = Relay::spawn(dir.path(), &["--leases", "1024"]);
    let first = Page::of(&relay);

    let mut clients: Vec<_> = (1..=MEMBERS).map(|at| Client::new(relay.ipv4(), at)).collect();
    let mut leases: Vec<_> = clients.iter_mut().map(Client::bind).collect();
    let bound = until(&relay, |page| page.outcome("bound") == f64::from(MEMBERS));
    assert_eq!(bound.outcome("challenged"), f64::from(MEMBERS));
    assert_eq!(bound.value("leases{state=\"pending\"}"), f64::from(MEMBERS));
    assert!(clients.iter().zip(&leases).all(|(client, lease)| client.probe(lease)));
    until(&relay, |page| page.value("leases_activated_total") == f64::from(MEMBERS));
    forward(&relay, &clients, &leases);
    leases[0] = bind_again(&relay, &mut clients[0], &leases[0]);
    misuse(&relay, &clients, &leases);
    control(&relay, &clients, &leases);
    exhaust(&relay);

    let last = until(&relay, accounts_balance);
    for (gauge, value) in [
        ("leases{state=\"active\"}", f64::from(MEMBERS) - 1.0),
        ("leases{state=\"pending\"}", 0.0),
        ("leases_capacity", 1024.0),
        ("sessions", 1.0),
        ("ready", 1.0),
        ("control_connected", 0.0),
        ("shards", 2.0),
    ] {
        assert_eq!(last.value(gauge), value, "{gauge}");
    }
    let not_after = last.value("certificate_not_after_seconds") - unix_s() as f64;
    assert!((86_000.0..=86_400.0).contains(&not_after), "{not_after}");
    assert_eq!(last.value("steering{by=\"handle\"}"), 1.0);
    assert_eq!(last.sum(|series| series.starts_with("gso_verdict{")), 1.0);
    let version = format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(last.value(&version), 1.0);
    assert_eq!(last.sum(|series| series.starts_with("io_backend{")), 1.0);

    refuse(&relay, dir.path());
    cap(&relay, dir.path(), &clients, &leases);
    fail(&relay, &clients, &leases);
    let last = until(&relay, accounts_balance);
    assert!(first.0.keys().eq(last.0.keys()), "every series is there from the first scrape");
    let moved = MOVED.lock().unwrap().clone();
    // Which bucket an observation falls into is the machine's doing: `_count` must move.
    let still = last.0.keys().filter(|series| !moved.contains(*series));
    for series in still.filter(|series| !series.contains("_bucket{")) {
        let elsewhere = MOVED_ELSEWHERE.iter().any(|(start, _)| series.starts_with(start));
        assert!(elsewhere, "{series} was not moved");
    }
    check_with_promtool(&relay);
    relay.stop();
}

fn ctl(dir: &Path, arguments: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_lanrage-relay"))
        .arg("ctl")
        .args(arguments.split_whitespace())
        .env("LANRAGE_RELAY_ADMIN_SOCKET", dir.join("admin.sock"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Binds that fail, and leases that end in every way that takes seconds.
fn refuse(relay: &Relay, dir: &Path) {
    const DAY: u64 = 24 * 3600;
    let client = |member| Client::new(relay.ipv4(), member);
    let now = unix_s();
    let elsewhere = |ticket: &mut TicketBody| ticket.session = SessionId(0xdef);
    let refused = [
        client(1).bind_with(|ticket, _| ticket.key_id = KeyId(9)),
        client(1).bind_with(|ticket, _| ticket.expires = now - DAY - 60),
        client(1).bind_with(|ticket, _| ticket.not_before = now + 600),
        client(1).bind_with(|ticket, _| ticket.pool = PoolId(9)),
        client(1).bind_with(|ticket, _| ticket.key.0[9] ^= 1),
        client(1).bind_with(|_, claim| claim.1 = 0),
    ];
    let reasons = refused.map(|result| result.map(|_| ()).unwrap_err());
    let expected = [
        Refusal::BadTicket,
        Refusal::Expired,
        Refusal::NotYetValid,
        Refusal::WrongRelay,
        Refusal::WrongKey,
        Refusal::Replayed,
    ];
    assert_eq!(reasons, expected);

    // Taken over again and again by other instances, until it is once too often.
    let mut last = Ok(());
    for instance in 1..=5 {
        let mut taker = client(3);
        let bound = taker.bind_with(|ticket, claim| {
            elsewhere(ticket);
            claim.0 = [instance; 16];
        });
        last = bound.map(|lease| assert!(taker.probe(&lease)));
        until(relay, |page| page.value("leases{state=\"pending\"}") == 0.0);
    }
    assert_eq!(last, Err(Refusal::Duplicate));

    // Without control a ticket holds for a day longer, to the second.
    let mut late = client(4);
    let lease = late.bind_with(|ticket, _| {
        elsewhere(ticket);
        ticket.expires = now - DAY + 2;
    });
    assert!(late.probe(&lease.unwrap()));
    client(5).bind_with(|ticket, _| elsewhere(ticket)).unwrap();
    for cause in ["expired", "unused", "replaced"] {
        let series = format!("leases_ended_total{{cause=\"{cause}\"}}");
        until(relay, |page| page.value(&series) > 0.0);
    }

    ctl(dir, "ban session 0000000000000def");
    let banned = client(6).bind_with(|ticket, _| elsewhere(ticket));
    assert_eq!(banned.map(|_| ()), Err(Refusal::Banned));
    until(relay, |page| page.value("leases_ended_total{cause=\"banned\"}") > 0.0);
    ctl(dir, "drain --deadline 60");
    assert_eq!(client(1).try_bind().map(|_| ()), Err(Refusal::Draining));
    until(relay, |page| page.value("draining") == 1.0 && page.value("moving_total") > 0.0);
    ctl(dir, "undrain");
    until(relay, |page| page.value("ready") == 1.0 && page.value("bans") == 1.0);
}

/// Sends more than an operator allows.
fn cap(relay: &Relay, dir: &Path, clients: &[Client], leases: &[Lease]) {
    let send = |at: usize| {
        let frame = clients[at].frame(&leases[at], one(9), b"too often");
        (0..50).for_each(|_| assert!(clients[at].socket.send(&frame).is_ok()));
    };
    ctl(dir, "cap 0000000000000abc --member 2 --packets 1");
    burst_until(relay, || send(1), |page| page.dropped("rate_lease") > 0.0);
    ctl(dir, "uncap 0000000000000abc --member 2");
    ctl(dir, "cap 0000000000000abc --packets 1");
    burst_until(relay, || send(2), |page| page.dropped("rate_session") > 0.0);
    until(relay, |page| page.value("caps") == 1.0);
    ctl(dir, "uncap 0000000000000abc");
}

/// What the kernel refuses, loses and breaks.
fn fail(relay: &Relay, clients: &[Client], leases: &[Lease]) {
    let (a, b) = (&clients[0], &clients[1]);
    let to_b = a.frame(&leases[0], one(2), &[7; 1_400]);
    let failed = |error: &str, cause: &dyn Fn()| {
        let series = format!("send_failures_total{{error=\"{error}\"}}");
        burst_until(relay, cause, |page| page.value(&series) > 0.0);
    };
    let port = b.socket.local_addr().unwrap().port();
    run("nft", "add table ip lost");
    run("nft", "add chain ip lost out { type filter hook output priority 0; }");
    run("nft", &format!("add rule ip lost out udp dport {port} drop"));
    failed("not_permitted", &|| assert!(a.socket.send(&to_b).is_ok()));
    let hello = Hello { version_min: 1, version_max: 1, nonce: Nonce([1; 16]) }.encode();
    let ask = || assert!(b.socket.send(&hello).is_ok());
    burst_until(relay, ask, |page| {
        page.value("control_packets_sent_total{result=\"failed\"}") > 0.0
    });
    run("nft", "delete table ip lost");

    run("ip", "link set lo mtu 1300");
    failed("message_size", &|| assert!(a.socket.send(&to_b).is_ok()));
    run("ip", "link set lo mtu 65536");

    let ip = "10.9.0.2";
    run("ip", &format!("addr add {ip}/32 dev lo"));
    let mut far = Client::at(ip.parse().unwrap(), relay.ipv4(), 200);
    let lease = far.bind();
    assert!(far.probe(&lease));
    let active = |page: &Page| page.value("leases{state=\"pending\"}") == 0.0;
    until(relay, active);
    let to_far = a.frame(&leases[0], one(200), b"far");
    run("ip", &format!("addr del {ip}/32 dev lo"));
    run("ip", &format!("route add unreachable {ip}"));
    failed("unreachable", &|| assert!(a.socket.send(&to_far).is_ok()));
    run("ip", &format!("route replace blackhole {ip}"));
    failed("invalid", &|| assert!(a.socket.send(&to_far).is_ok()));

    // A relay that stands still: its sockets overflow.
    relay.signal(Signal::STOP);
    (0..60_000).for_each(|_| assert!(a.socket.send(&to_b).is_ok()));
    relay.signal(Signal::CONT);
    let send = || assert!(a.socket.send(&to_b).is_ok());
    burst_until(relay, send, |page| page.dropped("socket_overflow") > 0.0);

    // SOCK_DESTROY fails a receive with ECONNABORTED, and leaves the socket bound.
    let destroy = || drop(run("ss", "-K -H -u -a sport = 51820"));
    burst_until(relay, destroy, |page| page.value("receive_errors_total") > 0.0);
    // What was sent to it meanwhile is read first.
    eventually("it to serve on", || clients[2].probe(&leases[2]));
}

/// Prometheus's own opinion of the page.
fn check_with_promtool(relay: &Relay) {
    let answer = relay.get("/metrics");
    let (_, page) = answer.split_once("\r\n\r\n").unwrap();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: see bench/setup");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

/// To oneself, to one, to all, to nobody.
fn forward(relay: &Relay, clients: &[Client], leases: &[Lease]) {
    let (a, b) = (&clients[0], &clients[1]);
    a.socket.send(&a.frame(&leases[0], one(2), b"to one")).unwrap();
    assert!(b.receive().unwrap().ends_with(b"to one"));
    a.socket.send(&a.frame(&leases[0], Destination::Everyone, b"to all")).unwrap();
    assert!(clients[1..].iter().all(|client| client.receive().unwrap().ends_with(b"to all")));
    a.ask(&a.frame(&leases[0], one(200), b"to nobody")).unwrap();
    let others = f64::from(MEMBERS) - 1.0;
    let page = until(relay, |page| page.value("hints_total") == 1.0);
    for (series, value) in [
        ("packets_forwarded_total{to=\"self\"}", others + 1.0),
        ("packets_forwarded_total{to=\"member\"}", 1.0),
        ("packets_forwarded_total{to=\"everyone\"}", 1.0),
        ("broadcast_copies_total", others),
        ("broadcasts_deferred_total", 1.0),
        ("leases_begun_total", others + 1.0),
    ] {
        assert_eq!(page.value(series), value, "{series}");
    }
    let sent = |page: &Page| page.value("packets_sent_total");
    let page = until(relay, |page| sent(page) == 2.0 * others + 3.0);
    // Headers and payloads: probes, one, all, and the hint.
    let bytes = (others + 1.0) * 21.0 + 22.0 + others * 22.0 + 12.0;
    assert_eq!(page.value("bytes_sent_total"), bytes);
}

/// Renews, resumes, and tries to resume once more.
fn bind_again(relay: &Relay, client: &mut Client, lease: &Lease) -> Lease {
    let renewed = client.bind();
    assert_eq!(renewed.handle, lease.handle);
    let (resume, cookie) = client.resume(&renewed);
    let answer = client.ask(&resume).unwrap();
    assert_eq!(client.ask(&resume).unwrap(), answer, "the same again");
    let resumed = Resumed::decode(&answer).unwrap().open(&renewed.resumption_key, cookie).unwrap();
    let BindResult::Lease(resumed) = resumed else { panic!("refused") };
    client.ask(&client.resume(&renewed).0).unwrap();
    let hello = Hello { version_min: 2, version_max: 9, nonce: Nonce([1; 16]) };
    client.ask(&hello.encode()).unwrap();
    let page = until(relay, |page| page.outcome("unsupported") == 1.0);
    for outcome in ["renewed", "resumed", "repeated", "refused"] {
        assert_eq!(page.outcome(outcome), 1.0, "{outcome}");
    }
    assert_eq!(page.value("binds_refused_total{reason=\"replayed\"}"), 1.0);
    assert!(page.value("control_packets_sent_total{result=\"sent\"}") >= f64::from(MEMBERS) * 2.0);
    *resumed
}

/// Everything a datagram can be dropped for by its own fault.
fn misuse(relay: &Relay, clients: &[Client], leases: &[Lease]) {
    let (a, lease) = (&clients[0], &leases[0]);
    let good = Sent::new(RelayId(0), one(2), a.member, lease.handle, lease.tag);
    let unheld = Handle::new((1 << Handle::INDEX_BITS) - 1, 0);
    let (nonce, cookie) = (Nonce([7; 16]), Cookie([7; Cookie::LEN]));
    let resume = Resume::new(nonce, cookie, &lease.resumption_ticket, &[7; 32], RELAY);
    let empty_range = Hello { version_min: 2, version_max: 1, nonce };
    let mut request = encode_request(TransactionId([7; 12]));
    request[3] = 4;
    let before = Page::of(relay);
    let wrong = [
        ("unknown_type", vec![0xff]),
        ("relay_only_type", vec![0xf4; 40]),
        ("length", Vec::new()),
        ("handle", Sent { handle: unheld, ..good }.encode().to_vec()),
        ("tag", Sent { tag: Tag(good.tag.0 ^ 1), ..good }.encode().to_vec()),
        ("source", Sent { source: 2, ..good }.encode().to_vec()),
        ("flags", Sent { flags: 1, ..good }.encode().to_vec()),
        ("destination", Sent { destination: 251, ..good }.encode().to_vec()),
        ("no_mesh", Sent { egress: RelayId(9), ..good }.encode().to_vec()),
        ("no_peer", Sent { destination: 200, ..good }.encode().to_vec()),
        ("stun_malformed", request),
    ];
    wrong.iter().for_each(|(_, datagram)| assert!(a.socket.send(datagram).is_ok()));
    clients[1].socket.send(&good.encode()).unwrap();
    let after = until(relay, |page| {
        let once = |reason: &str| page.dropped(reason) - before.dropped(reason) == 1.0;
        once("address") && wrong.iter().all(|(reason, _)| once(reason))
    });
    let wrong = [
        ("malformed", empty_range.encode()),
        ("bad_cookie", resume.encode()),
        ("not_authentic", Message::Release.seal(&[7; 32], lease.handle, u64::MAX)),
        ("no_lease", Message::Release.seal(&[7; 32], unheld, 1)),
    ];
    for (outcome, datagram) in wrong {
        a.socket.send(&datagram).unwrap();
        let before = after.outcome(outcome);
        until(relay, |page| page.outcome(outcome) == before + 1.0);
    }
}

/// The last client moves, and leaves.
fn control(relay: &Relay, clients: &[Client], leases: &[Lease]) {
    let (client, lease) = (clients.last().unwrap(), leases.last().unwrap());
    // What was sent to all of them is still there to be read.
    let Some(Message::RebindChallenge(cookie)) = client.control(lease, Message::Rebind, 1) else {
        panic!("no challenge");
    };
    client.control(lease, Message::RebindAnswer(cookie), 2).unwrap();
    client.socket.send(&Message::Release.seal(&lease.key_to_relay, lease.handle, 3)).unwrap();
    let page = until(relay, |page| page.outcome("released") == 1.0);
    assert_eq!((page.outcome("rebind_challenged"), page.outcome("rebound")), (1.0, 1.0));
    assert_eq!(page.value("leases_ended_total{cause=\"released\"}"), 1.0);
}

/// Uses up the budgets that a busy host can use up, too.
fn exhaust(relay: &Relay) {
    let newcomer = Client::new(relay.ipv4(), 1);
    let request = encode_request(TransactionId([7; 12]));
    let ask_stun = || (0..1_000).for_each(|_| assert!(newcomer.socket.send(&request).is_ok()));
    burst_until(relay, ask_stun, |page| page.dropped("stun_budget") > 0.0);
    assert!(Page::of(relay).value("packets_answered_total") > 0.0);

    let newcomer = Client::new(relay.ipv4(), 1);
    let challenge = newcomer.challenge();
    let guess = || {
        for at in 0..400_u16 {
            let ticket = at.to_be_bytes();
            let key = [0; 32];
            let resume = Resume::new(challenge.nonce, challenge.cookie, &ticket, &key, RELAY);
            newcomer.socket.send(&resume.encode()).unwrap();
        }
    };
    burst_until(relay, guess, |page| page.outcome("prefix_budget") > 0.0);
}

/// The sums that a reader of the page would make, once nothing is under way.
fn accounts_balance(page: &Page) -> bool {
    let skew = page.sum(|series| series.starts_with("accounting_skew"));
    let forwarded = page.sum(|series| series.starts_with("packets_forwarded_total"));
    let dropped = page.sum(|series| {
        series.starts_with("packets_dropped_total") && !series.contains("fault=\"kernel\"")
    });
    let outcomes = page.sum(|series| series.starts_with("control_outcomes_total"));
    let (answered, to_control) =
        (page.value("packets_answered_total"), page.value("packets_to_control_total"));
    let received = page.value("packets_received_total");
    skew == 0.0
        && received == forwarded + page.value("mesh_absent_total") + answered + to_control + dropped
        && to_control == outcomes
        && received == page.value("train_segments_sum")
        && page.value("bytes_received_total") >= 16.0 * forwarded
        && page.value("batch_arrivals_sum") == page.value("train_segments_count")
}

#[test]
fn stun_can_be_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let settings = Settings { stun: Some(false), ..Settings::default() };
    let relay = Relay::start_with(dir.path(), settings);
    let client = Client::new(relay.ipv4(), 1);
    client.socket.send(&encode_request(TransactionId([7; 12]))).unwrap();
    let page = until(&relay, |page| page.dropped("stun_off") == 1.0);
    assert_eq!(page.value("packets_answered_total"), 0.0);
    assert_eq!(page.value("packets_sent_total"), 0.0);
    relay.stop();
}
