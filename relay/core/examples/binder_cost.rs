//! What the binder spends on each kind of datagram, beside the floor of BIND: the public-key work that
//! Noise IK and a ticket ask of a relay, by the same primitives.
//!
//! ```text
//! cargo run --release -p lanrage-relay-core --example binder_cost
//! ```
#![expect(clippy::print_stdout, reason = "prints what it measures")]
#![expect(clippy::unwrap_used, reason = "a measurement that fails has none to give")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use common::{LOCAL, POOL, Player, RELAY, World, open_bound};
use curve25519_dalek::MontgomeryPoint;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use lanrage_proto::frame::Nonce;
use lanrage_proto::frame::bind::Lease;
use lanrage_proto::frame::challenge::Challenge;
use lanrage_proto::frame::control::Message;
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::frame::resume::Resume;
use lanrage_relay_core::Outcome;

const LEASES: u32 = 1000;
const ROUNDS: usize = 9;

fn main() {
    let mut rounds: Vec<Round> = (0..ROUNDS).map(|_| Round::run()).collect();
    let median = |of: fn(&Round) -> f64, rounds: &mut Vec<Round>| {
        rounds.sort_by(|a, b| of(a).total_cmp(&of(b)));
        of(&rounds[rounds.len() / 2])
    };
    for (name, of) in Round::FIGURES {
        println!("{name:<36}{:>10.0} ns", median(of, &mut rounds));
    }
    println!("{:<36}{:>10.3}", "floor / (HELLO and BIND)", median(Round::ratio, &mut rounds));
}

/// Nanoseconds each.
struct Round {
    floor: f64,
    hello: f64,
    bind: f64,
    rebind: f64,
    resume: f64,
}

impl Round {
    const FIGURES: [(&str, fn(&Self) -> f64); 5] = [
        ("floor of BIND", |round| round.floor),
        ("HELLO", |round| round.hello),
        ("BIND", |round| round.bind),
        ("REBIND and REBIND_ANSWER", |round| round.rebind),
        ("RESUME", |round| round.resume),
    ];

    fn ratio(&self) -> f64 {
        self.floor / (self.hello + self.bind)
    }

    fn run() -> Self {
        let mut world = World::new(LEASES);
        let mut players: Vec<_> = (0..LEASES).map(player).collect();
        let hello = hellos(&mut world, &players);
        let (bind, leases) = binds(&mut world, &mut players);
        let rebind = rebinds(&mut world, &players, &leases);
        world.crash(LEASES);
        let resume = resumes(&mut world, &players, &leases);
        Self { floor: floor(), hello, bind, rebind, resume }
    }
}

/// Sessions of four, every member at a prefix of its own.
fn player(at: u32) -> Player {
    let [_, a, b, c] = at.to_be_bytes();
    let address = SocketAddr::from(([10, a + 1, b, c], 7));
    Player::new(u64::from(at / 4), (at % 4) as u8 + 1, address)
}

/// Milliseconds between datagrams: no budget is what is measured.
const PAUSE_MS: u64 = 10;

/// Hands the binder each datagram and gives nanoseconds a datagram, and the answers.
fn time<'a>(
    world: &mut World,
    datagrams: impl ExactSizeIterator<Item = (SocketAddr, &'a [u8])>,
    expected: Outcome,
) -> (f64, Vec<Vec<u8>>) {
    let count = datagrams.len() as f64;
    let mut answers = Vec::with_capacity(datagrams.len());
    let mut now = world.now;
    let begin = Instant::now();
    for (source, datagram) in datagrams {
        let outcome = world.binder.handle_datagram(now, datagram, source, LOCAL);
        assert_eq!(outcome, expected);
        answers.extend(world.binder.poll_transmit().map(|transmit| transmit.bytes));
        now.ms += PAUSE_MS;
    }
    let spent = begin.elapsed().as_nanos() as f64;
    world.now = now;
    (spent / count, answers)
}

fn pair<'a>((player, bytes): (&Player, &'a Vec<u8>)) -> (SocketAddr, &'a [u8]) {
    (player.address, bytes)
}

fn hello(at: usize) -> Vec<u8> {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&(1 << 63 | at as u64).to_be_bytes());
    Hello { version_min: 1, version_max: 1, nonce: Nonce(nonce) }.encode().to_vec()
}

fn hellos(world: &mut World, players: &[Player]) -> f64 {
    let frames: Vec<_> = (0..players.len()).map(hello).collect();
    time(world, players.iter().zip(&frames).map(pair), Outcome::Challenged).0
}

fn binds(world: &mut World, players: &mut [Player]) -> (f64, Vec<Lease>) {
    let (frames, initiators): (Vec<_>, Vec<_>) = players
        .iter_mut()
        .map(|player| {
            let ticket = world.ticket(player).sign(&world.signing);
            world.bind_frame(player, ticket)
        })
        .unzip();
    let (spent, answers) = time(world, players.iter().zip(&frames).map(pair), Outcome::Bound);
    let opened = answers.iter().zip(initiators);
    (spent, opened.map(|(answer, mut by)| open_bound(answer, &mut by).unwrap()).collect())
}

/// Both messages, at a new address.
fn rebinds(world: &mut World, players: &[Player], leases: &[Lease]) -> f64 {
    let frames: Vec<_> = leases
        .iter()
        .map(|lease| Message::Rebind.seal(&lease.key_to_relay, lease.handle, 1))
        .collect();
    let moved: Vec<_> = players
        .iter()
        .map(|player| Player { address: (player.address.ip(), 8).into(), ..player.clone() })
        .collect();
    let (first, answers) =
        time(world, moved.iter().zip(&frames).map(pair), Outcome::RebindChallenged);
    let frames: Vec<_> = answers
        .iter()
        .zip(leases)
        .map(|(answer, lease)| {
            let Some(Message::RebindChallenge(cookie)) = common::open_control(answer, lease) else {
                panic!("the answer to REBIND is a challenge");
            };
            Message::RebindAnswer(cookie).seal(&lease.key_to_relay, lease.handle, 2)
        })
        .collect();
    let (second, _) = time(world, moved.iter().zip(&frames).map(pair), Outcome::Rebound);
    first + second
}

fn resumes(world: &mut World, players: &[Player], leases: &[Lease]) -> f64 {
    let hellos: Vec<_> = (0..players.len()).map(hello).collect();
    let (_, answers) = time(world, players.iter().zip(&hellos).map(pair), Outcome::Challenged);
    let frames: Vec<_> = answers
        .iter()
        .zip(leases)
        .map(|(answer, lease)| {
            let Challenge { nonce, cookie, .. } = Challenge::decode(answer).unwrap();
            let (ticket, key) = (&lease.resumption_ticket, &lease.resumption_key);
            Resume::new(nonce, cookie, ticket, key, RELAY).encode()
        })
        .collect();
    time(world, players.iter().zip(&frames).map(pair), Outcome::Resumed).0
}

/// Four Diffie-Hellmans, two public keys made and one strict verification of a ticket.
fn floor() -> f64 {
    let (private, point) = ([0x77; 32], MontgomeryPoint::mul_base_clamped([0x66; 32]));
    let key = SigningKey::from_bytes(&[0x55; 32]);
    let message = [POOL.0 as u8; 93];
    let signature = key.sign(&message);
    let public = key.verifying_key().to_bytes();
    let times = 300;
    let begin = Instant::now();
    for _ in 0..times {
        for _ in 0..4 {
            black_box(black_box(point).mul_clamped(black_box(private)));
        }
        for _ in 0..2 {
            black_box(MontgomeryPoint::mul_base_clamped(black_box(private)));
        }
        let key = VerifyingKey::from_bytes(black_box(&public)).unwrap();
        black_box(key.verify_strict(black_box(&message), &signature)).unwrap();
    }
    begin.elapsed().as_nanos() as f64 / f64::from(times)
}
