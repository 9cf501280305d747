//! Every counter the relay exports is moved: by this story, or by a test that is named here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use common::{Client, RELAY, Relay, prepare};
use lanrage_proto::frame::bind::{BindResult, Lease};
use lanrage_proto::frame::control::Message;
use lanrage_proto::frame::data::Sent;
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::frame::resume::{Resume, Resumed};
use lanrage_proto::frame::{Cookie, Nonce};
use lanrage_proto::ids::{Destination, Handle, Member, RelayId, Tag};
use lanrage_proto::stun::{TransactionId, encode_request};
use lanrage_relay::Settings;

/// More than a shard copies in one pass, and one for whom nothing is copied.
const MEMBERS: u8 = 66;
/// Of bursts until a budget is used up.
const BURSTS_MAX: usize = 50;

/// What no story of a few seconds on a healthy host moves, by the test that does. What stands here
/// without a label is all of a metric that the story has not moved.
const MOVED_ELSEWHERE: [(&str, &str); 28] = [
    ("packets_dropped_total{reason=\"rate_lease\"", "the_rate_cuts_a_train_and_counts_the_rest"),
    (
        "packets_dropped_total{reason=\"rate_session\"",
        "the_rate_of_a_session_holds_for_all_its_leases",
    ),
    ("broadcasts_cut_total", "regression_broadcasts_that_wait_are_held_to_their_senders_rate"),
    (
        "control_outcomes_total{outcome=\"budget\"",
        "a_flood_of_hellos_starves_neither_binds_nor_control",
    ),
    ("packets_dropped_total{reason=\"table_busy\"", "lanrage-relay-table: loom, storm"),
    ("packets_dropped_total{reason=\"broadcast_backlog\"", "a_large_party_is_served_in_passes"),
    ("packets_dropped_total{reason=\"control_queue\"", "a_full_binder_queue_is_a_counted_drop"),
    ("packets_dropped_total{reason=\"stun_off\"", "stun_can_be_switched_off"),
    ("packets_dropped_total{reason=\"socket_overflow\"", "counts_what_the_kernel_dropped"),
    ("packets_dropped_total{reason=\"truncated\"", "a_truncated_arrival_is_counted"),
    ("packets_dropped_total{reason=\"malformed_address\"", "address, arrival: their unit tests"),
    ("broadcast_copies_torn_total", "lanrage-relay-table: loom, storm"),
    ("packets_joined_total", "arrivals_from_many_sources_are_joined"),
    ("send_failures_total", "failed_sends_are_counted_by_kind_and_hold_up_nobody"),
    ("receive_errors_total", "the kernel: an unconnected UDP socket has no errors of its own"),
    ("receive_rearms_total", "runs_out_of_buffers_and_recovers"),
    ("gso_events_total", "eio_sends_the_train_again_and_stops_trying and others of gso"),
    (
        "control_outcomes_total{outcome=\"no_certificate\"",
        "without_a_certificate_nobody_is_challenged",
    ),
    ("control_packets_sent_total{result=\"failed\"", "the kernel: a full send buffer"),
    ("binds_refused_total{reason=\"draining\"", "nothing: this relay never drains"),
    ("binds_refused_total", "each_refusal_has_its_reason and others of binding"),
    (
        "leases_ended_total{cause=\"replaced\"",
        "a_pending_lease_replaces_only_when_used_and_ends_unused",
    ),
    (
        "leases_ended_total{cause=\"unused\"",
        "a_pending_lease_replaces_only_when_used_and_ends_unused",
    ),
    ("leases_ended_total{cause=\"idle\"", "a_lease_ends_idle_released_expired"),
    ("leases_ended_total{cause=\"expired\"", "a_lease_ends_idle_released_expired"),
    (
        "leases_ended_total{cause=\"revoked\"",
        "a_revocation_ends_leases_and_a_later_generation_outlives_it",
    ),
    ("train_segments_bucket", "forwards_trains_whole"),
    ("batch_arrivals_bucket", "histogram_bounds_are_inclusive"),
];

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
        Self(series.collect())
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
    }
    panic!("{BURSTS_MAX} bursts were not enough:\n{}", relay.get("/metrics"));
}

fn one(member: u8) -> Destination {
    Destination::One(Member::new(member).unwrap())
}

#[test]
fn every_counter_moves() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let relay = Relay::start_with(dir.path(), Settings::default());
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
    assert!(first.0.keys().eq(last.0.keys()), "every series is there from the first scrape");
    let is_counter = |name: &str| name.contains("_total") || name.contains("_bucket");
    let unmoved = last.0.iter().filter(|(name, value)| is_counter(name) && **value == 0.0);
    for (series, _) in unmoved {
        let elsewhere = MOVED_ELSEWHERE.iter().any(|(start, _)| series.starts_with(start));
        assert!(elsewhere, "{series} was not moved");
    }
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
    let not_after = last.value("certificate_not_after_seconds") - common::unix_s() as f64;
    assert!((86_000.0..=86_400.0).contains(&not_after), "{not_after}");
    assert_eq!(last.value("steering{by=\"handle\"}"), 1.0);
    assert_eq!(last.sum(|series| series.starts_with("gso_verdict{")), 1.0);
    let version = format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    let backend = format!("io_backend{{backend=\"{}\"}}", relay.started.backend.as_str());
    assert_eq!((last.value(&version), last.value(&backend)), (1.0, 1.0));
    relay.stop();
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
        page.dropped("address") == 1.0 && page.dropped("stun_malformed") == 1.0
    });
    for (reason, _) in wrong {
        assert_eq!(after.dropped(reason) - before.dropped(reason), 1.0, "{reason}");
    }
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
        && received == forwarded + answered + to_control + dropped
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
