//! Everybody resumes at once at the real program, which was killed and started again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use common::namespace::in_a_namespace;
use common::vitals::is_soak;
use common::{Client, RELAY, Relay, bind_frame, eventually, prepare, resumed};
use lanrage_proto::datagram::{Kind, kind};
use lanrage_proto::frame::Nonce;
use lanrage_proto::frame::bind::{BindResult, Bound, Lease};
use lanrage_proto::frame::challenge::Challenge;
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::frame::resume::{Resume, Resumed};
use lanrage_proto::ids::{Destination, Member, SessionId};
use rustix::process::Signal;

/// Of a party behind one address: as many as may bind at once.
const MEMBERS: u8 = 250;
/// What a client waits before it asks again.
const PATIENCE: Duration = Duration::from_millis(250);
/// What answers gather for: to be woken by each would take the relay's time, on the same cores.
const GATHER: Duration = Duration::from_millis(1);
/// Of the tests' own threads.
const THREADS: usize = 4;

/// A whole party behind one address.
struct Party {
    client: Client,
    leases: Vec<Lease>,
}

impl Party {
    fn new(relay: SocketAddr, number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        let ip = IpAddr::V4(Ipv4Addr::new(127, 64 + high, low, 1));
        let mut client = Client::at(ip, relay, 1);
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&client.socket, 4 << 20).unwrap();
        client.session = SessionId(0x1000 + u64::from(number));
        let leases = (1..=MEMBERS).map(|member| {
            client.member = Member::new(member).unwrap();
            bind(&mut client)
        });
        let leases = leases.collect();
        Self { client, leases }
    }

    /// Asks until all leases are there again. A cookie is good for one nonce, which tells the leases
    /// apart.
    fn resume(&mut self) -> Vec<Lease> {
        let nonce = |at: usize| Nonce((at as u128).to_be_bytes());
        let at = |nonce: Nonce| u128::from_be_bytes(nonce.0) as usize;
        let mut cookies = vec![None; self.leases.len()];
        let mut back: Vec<Option<Lease>> = vec![None; self.leases.len()];
        self.client.socket.set_nonblocking(true).unwrap();
        while back.iter().any(Option::is_none) {
            // The kernel says of a datagram before that nobody is there yet.
            let is_there = (0..back.len()).filter(|at| back[*at].is_none()).all(|at| {
                let hello = Hello { version_min: 1, version_max: 1, nonce: nonce(at) };
                self.client.socket.send(&hello.encode()).is_ok()
            });
            let mut heard = Instant::now();
            while is_there && back.iter().any(Option::is_none) && heard.elapsed() < PATIENCE {
                thread::sleep(GATHER);
                while let Some(answer) = self.client.receive() {
                    heard = Instant::now();
                    if let Ok(challenge) = Challenge::decode(&answer) {
                        let Challenge { nonce, cookie, .. } = challenge;
                        let lease = &self.leases[at(nonce)];
                        let (ticket, key) = (&lease.resumption_ticket, &lease.resumption_key);
                        cookies[at(nonce)] = Some(cookie);
                        let resume = Resume::new(nonce, cookie, ticket, key, RELAY);
                        self.client.socket.send(&resume.encode()).unwrap();
                    } else if let Ok(Resumed { nonce, .. }) = Resumed::decode(&answer) {
                        let (lease, cookie) = (&self.leases[at(nonce)], cookies[at(nonce)]);
                        let lease = resumed(&answer, lease, cookie.unwrap());
                        let lease = lease.unwrap_or_else(|no| panic!("{}", no.as_str()));
                        back[at(nonce)] = Some(lease);
                    }
                }
            }
            thread::sleep(GATHER);
        }
        self.client.socket.set_nonblocking(false).unwrap();
        back.into_iter().map(|lease| lease.expect("none is missing")).collect()
    }

    /// The first frame makes a lease its member's own.
    fn use_all(&mut self, leases: &[Lease]) {
        for (member, lease) in (1..=MEMBERS).zip(leases) {
            self.client.member = Member::new(member).unwrap();
            let to = Destination::One(self.client.member);
            self.client.socket.send(&self.client.frame(lease, to, b"back")).unwrap();
        }
    }
}

/// The binder's budget for handshakes is a share of its time: who is not answered asks again.
fn bind(client: &mut Client) -> Lease {
    client.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    loop {
        let challenge = client.challenge_at_last();
        let who = (client.session, client.member);
        let (bind, mut initiator) = bind_frame(&challenge, who, 1);
        client.socket.send(&bind).unwrap();
        let answer = client.receive().filter(|answer| kind(answer) == Kind::Bound);
        if let Some(answer) = answer {
            let payload = initiator.finish(Bound::decode(&answer).unwrap().noise).unwrap();
            match BindResult::decode(&payload).unwrap() {
                BindResult::Lease(lease) => return *lease,
                BindResult::Refused { reason, .. } => panic!("refused: {}", reason.as_str()),
            }
        }
    }
}

#[test]
fn everybody_resumes_after_a_crash() {
    in_a_namespace(|| {
        let parties = if is_soak() { 400u16 } else { 8 };
        let leases = usize::from(parties) * usize::from(MEMBERS);
        let capacity = leases.to_string();
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let arguments = ["--leases", &capacity];
        let relay = Relay::spawn(dir.path(), &arguments);
        let at = relay.ipv4();
        let begun = Instant::now();
        let all: Vec<u16> = (0..parties).collect();
        let mut all: Vec<Party> = thread::scope(|scope| {
            let chunks = all.chunks(all.len().div_ceil(THREADS));
            let joins: Vec<_> = chunks
                .map(|numbers| {
                    scope.spawn(move || -> Vec<_> {
                        numbers.iter().map(|number| Party::new(at, *number)).collect()
                    })
                })
                .collect();
            joins.into_iter().flat_map(|join| join.join().unwrap()).collect()
        });
        println!("{leases} leases bound in {:?}", begun.elapsed());

        relay.signal(Signal::KILL);
        let struck = Instant::now();
        drop(relay);
        let relay = thread::scope(|scope| {
            let started = scope.spawn(|| Relay::spawn(dir.path(), &arguments));
            let chunk = all.len().div_ceil(THREADS);
            for parties in all.chunks_mut(chunk) {
                scope.spawn(|| {
                    for party in parties {
                        let leases = party.resume();
                        party.use_all(&leases);
                    }
                });
            }
            started.join().unwrap()
        });
        println!("{leases} leases back {:?} after the kill", struck.elapsed());
        let active = "lanrage_relay_leases{state=\"active\"}";
        eventually("all leases", || relay.page()[active] == leases as f64);
        let page = relay.page();
        let outcome =
            |name| page[&format!("lanrage_relay_control_outcomes_total{{outcome=\"{name}\"}}")];
        assert_eq!((outcome("resumed"), outcome("bound")), (leases as f64, 0.0));
        relay.stop();
    });
}
