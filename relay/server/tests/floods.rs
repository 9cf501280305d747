//! Bound traffic beside floods of HELLO, BIND and junk at the real program.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "what it took is worth seeing")]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::mutate::Mutator;
use common::namespace::in_a_namespace;
use common::traffic::{Flow, one, skew};
use common::vitals::is_soak;
use common::{Client, Relay, bind_frame, eventually, prepare};
use lanrage_proto::frame::Nonce;
use lanrage_proto::frame::bind::Lease;
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::ids::{Destination, SessionId};

const MEMBERS: u8 = 9;
/// Networks that BINDs come from: each has a budget of its own, 100 a second, and together they have
/// more than one core can open.
const NETWORKS: u8 = 64;
/// Datagrams at once, every millisecond: what the machine has left beside both ends of the flows. The
/// relay's sockets hold far more, so that what is lost of the flows is lost by its doing.
const BURST: usize = 24;
/// Of the warm-up: the binder's queues have been used once by then.
const WARM_SHARE: u32 = 4;
/// See `malformed.rs`.
const RESIDENT_GROWTH_KIB: u64 = 32 << 10;
const RESIDENT_GROWTH_SOAK_KIB: u64 = 2 << 10;

#[derive(Clone, Copy, Debug)]
enum Flood {
    Hello,
    Bind,
    Junk,
    All,
}

/// Somebody's network, with cookies that hold.
struct Source {
    client: Client,
    /// It costs a handshake until it is found to be no good.
    bind: Vec<u8>,
}

impl Source {
    fn new(relay: SocketAddr, number: u8) -> Self {
        let ip = IpAddr::V4(Ipv4Addr::new(127, 2, number, 1));
        let mut client = Client::at(ip, relay, 200);
        client.session = SessionId(0xbad);
        let mut source = Self { client, bind: Vec::new() };
        source.renew();
        source
    }

    fn renew(&mut self) {
        let who = (self.client.session, self.client.member);
        // What came since would be in the way of the challenge.
        self.client.move_away();
        self.client.socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        self.bind = bind_frame(&self.client.challenge_at_last(), who, 1).0;
        *self.bind.last_mut().unwrap() ^= 1;
    }
}

fn flood(relay: SocketAddr, flood: Flood, stop: &AtomicBool, sent: &AtomicU64) {
    let mut sources: Vec<_> = (1..=NETWORKS).map(|number| Source::new(relay, number)).collect();
    let mut mutator = Mutator::new(0xf100d);
    let mut number = 0u64;
    let mut renewed = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            number += 1;
            let source = &mut sources[number as usize % usize::from(NETWORKS)];
            let kind = match (flood, number % 3) {
                (Flood::All, 0) => Flood::Hello,
                (Flood::All, 1) => Flood::Bind,
                (Flood::All, _) => Flood::Junk,
                (kind, _) => kind,
            };
            let datagram = match kind {
                Flood::Hello => {
                    let nonce = Nonce(u128::from(number).to_be_bytes());
                    Hello { version_min: 1, version_max: 1, nonce }.encode().to_vec()
                }
                Flood::Bind => {
                    // Each is another question.
                    let at = source.bind.len() - 40;
                    source.bind[at..at + 8].copy_from_slice(&number.to_be_bytes());
                    source.bind.clone()
                }
                Flood::Junk | Flood::All => mutator.noise(),
            };
            if source.client.socket.send(&datagram).is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        // A cookie holds for 90 s at least.
        if renewed.elapsed() > Duration::from_secs(60) {
            sources.iter_mut().for_each(Source::renew);
            renewed = Instant::now();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Ends the flood, also where an assertion fails: its scope waits for it.
struct EndsFlood<'a>(&'a AtomicBool);

impl Drop for EndsFlood<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Who only receives says now and then that it is there, or its lease ends; who does neither asks
/// whether it still has one.
fn tend(clients: &[Client], leases: &[Lease], until: Instant) {
    while Instant::now() < until {
        for (client, lease) in clients.iter().zip(leases).skip(7) {
            assert!(client.probe(lease), "member {}", client.member.number());
        }
        for (client, lease) in clients.iter().zip(leases).take(7) {
            let frame = client.frame(lease, Destination::One(client.member), b"here");
            client.socket.send(&frame).unwrap();
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn withstands(kind: Flood) {
    in_a_namespace(move || {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let relay = Relay::spawn(dir.path(), &["--leases", "1024"]);
        let mut clients: Vec<_> =
            (1..=MEMBERS).map(|member| Client::new(relay.ipv4(), member)).collect();
        // A broadcast reaches two: a lease may have 10,000 copies a second.
        clients[4..7].iter_mut().for_each(|client| client.session = SessionId(0xb0a));
        let leases: Vec<Lease> = clients.iter_mut().map(Client::bind).collect();
        for (client, lease) in clients.iter().zip(&leases) {
            assert!(client.probe(lease));
        }
        let lasts = Duration::from_secs(if is_soak() { 300 } else { 3 });
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let outcomes = |name: &str| {
            relay.page()[&format!("lanrage_relay_control_outcomes_total{{outcome=\"{name}\"}}")]
        };
        let before = outcomes("challenged");
        thread::scope(|scope| {
            let _ends = EndsFlood(&stop);
            scope.spawn(|| flood(relay.ipv4(), kind, &stop, &sent));
            let flows = [
                Flow::start(&clients[0], &leases[0], one(2), &[&clients[1]]),
                Flow::start(&clients[2], &leases[2], one(4), &[&clients[3]]),
                Flow::start(&clients[4], &leases[4], Destination::Everyone, &[&clients[5]]),
            ];
            let warm_at = Instant::now() + lasts / WARM_SHARE;
            tend(&clients, &leases, warm_at);
            let warm = relay.vitals();
            tend(&clients, &leases, warm_at + lasts - lasts / WARM_SHARE);
            let end = relay.vitals();
            let flown: u64 = flows.into_iter().map(Flow::finish).sum();
            let sent = sent.load(Ordering::Relaxed);
            println!("{kind:?}: {sent} beside {flown} without a loss; {warm:?}, then {end:?}");
            let growth = end.resident_kib.saturating_sub(warm.resident_kib);
            let bound = if is_soak() { RESIDENT_GROWTH_SOAK_KIB } else { RESIDENT_GROWTH_KIB };
            assert!(growth <= bound, "{growth} KiB more");
            assert_eq!(end.threads, warm.threads);
            // A scrape may still be on its way out.
            assert!(end.descriptors.abs_diff(warm.descriptors) <= 2);
        });
        if matches!(kind, Flood::Hello | Flood::All) {
            assert!(outcomes("challenged") > before, "the flood arrived");
        }
        for ended in ["idle", "expired"] {
            let name = format!("lanrage_relay_leases_ended_total{{cause=\"{ended}\"}}");
            assert_eq!(relay.page()[&name], 0.0, "{ended}");
        }
        eventually("skew 0", || skew(&relay.page()) == 0.0);
        relay.stop();
    });
}

#[test]
fn hellos_cost_no_bound_traffic() {
    withstands(Flood::Hello);
}

#[test]
fn binds_cost_no_bound_traffic() {
    withstands(Flood::Bind);
}

#[test]
fn junk_costs_no_bound_traffic() {
    withstands(Flood::Junk);
}

#[test]
fn hellos_binds_and_junk_at_once_cost_no_bound_traffic() {
    withstands(Flood::All);
}
