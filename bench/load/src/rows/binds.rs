//! What a bind costs the relay's core, over sockets, beside the public-key work that Noise IK and a
//! ticket ask of it.

use std::hint::black_box;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use curve25519_dalek::MontgomeryPoint;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use lanrage_proto::TunnelKey;
use lanrage_proto::frame::Nonce;
use lanrage_proto::frame::bind::{Bind, BindRequest, BindResult, Bound as BoundFrame, Lease};
use lanrage_proto::frame::challenge::Challenge;
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::handshake::Initiator;
use lanrage_proto::ids::{Generation, KeyId, RelayId, SessionId};
use lanrage_proto::signed::TicketBody;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{Setting, relay, start};
use crate::contestant::relay::{POOL, RELAY, Relay, UNLIMITED, member, random, unix_s};
use crate::machine::Watched;
use crate::population::Population;
use crate::results::{Bound, Figure};
use crate::topology::{RELAY_CPU, Topology, pin};
use crate::workload::Workload;

/// As many as the relay lets wait at once, and fewer than the limit of open files.
const CLIENTS: u32 = 256;
/// Clients of a round.
const BATCHES: u32 = 4;
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) fn measure(
    setting: &Setting<'_>,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Vec<Figure>> {
    let (mut ratios, mut rates) = (Vec::new(), Vec::new());
    for number in 0..setting.extent.rounds {
        let workload = Workload { spare: 8192, ..Workload::sparse(4) };
        let running = start(setting, &workload)?;
        let relay = relay(&running)?;
        let floor = std::thread::scope(|scope| {
            let floor = scope.spawn(|| pin(RELAY_CPU).context("pinning").map(|()| floor()));
            floor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let topology = setting.topology;
        let spent = topology.enter(|| {
            let batch = |batch| {
                let clients = sockets(topology, 4 + batch * CLIENTS, CLIENTS, 0)?;
                Ok(bind_all(topology, relay, &clients)?.0)
            };
            (0..BATCHES).map(batch).sum::<anyhow::Result<f64>>()
        })??;
        let bind = spent / f64::from(CLIENTS * BATCHES);
        tell(&format!(
            "binds {number}: {:.0} µs of the relay's core each, {:.0} µs the floor",
            bind * 1e6,
            floor * 1e6
        ));
        if number > 0 {
            ratios.push(floor / bind);
            rates.push(1.0 / bind);
        }
    }
    let what = "binds a second and core, HELLO and sockets included / what 4 X25519, 2 base \
                multiplications and 1 Ed25519 verification allow";
    let figures = [
        Figure::of("binds/floor", what, &ratios, Some(Bound::AtLeast(0.75))),
        Figure::of("binds/second", "binds a second and core", &rates, None),
    ];
    Ok(figures.into_iter().flatten().collect())
}

/// Of clients that talk to the relay, at the addresses that leases of these numbers would have.
pub(super) fn sockets(
    topology: &Topology,
    first: u32,
    count: u32,
    class: u8,
) -> anyhow::Result<Vec<UdpSocket>> {
    (first..first + count)
        .map(|lease| {
            let address = Population::address(lease, class);
            let socket = UdpSocket::bind(address).with_context(|| address.to_string())?;
            socket.connect(topology.road().relay)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })
        .collect()
}

/// Binds a client at each socket, members 1 to 4 of a session each. The seconds are those in which
/// the relay's CPU was not idle.
pub(super) fn bind_all(
    topology: &Topology,
    relay: &Relay,
    sockets: &[UdpSocket],
) -> anyhow::Result<(f64, Vec<Lease>)> {
    let session: [u8; 8] = random()?;
    let session = u64::from_ne_bytes(session) & !0xffff;
    let hello = Hello { version_min: 1, version_max: 1, nonce: Nonce(random()?) };
    let hellos = vec![hello.encode(); sockets.len()];
    let (hello_spent, challenges) = exchange(topology, relay, sockets, &hellos)?;
    let (binds, initiators): (Vec<_>, Vec<_>) = challenges
        .iter()
        .enumerate()
        .map(|(at, challenge)| bind(relay, session, at as u32, hello.nonce, challenge))
        .collect::<anyhow::Result<Vec<_>>>()?
        .into_iter()
        .unzip();
    let (bind_spent, answers) = exchange(topology, relay, sockets, &binds)?;
    let mut leases = Vec::new();
    for (answer, mut initiator) in answers.iter().zip(initiators) {
        let bound = BoundFrame::decode(answer).context("BOUND")?;
        let payload = initiator.finish(bound.noise).context("BOUND")?;
        match BindResult::decode(&payload).context("BOUND")? {
            BindResult::Lease(lease) => leases.push(*lease),
            BindResult::Refused { reason, .. } => bail!("a bind was refused: {}", reason.as_str()),
        }
    }
    Ok((hello_spent + bind_spent, leases))
}

/// Each socket sends one and gets one. The seconds are the relay's CPU's.
fn exchange(
    topology: &Topology,
    relay: &Relay,
    sockets: &[UdpSocket],
    datagrams: &[Vec<u8>],
) -> anyhow::Result<(f64, Vec<Vec<u8>>)> {
    let napi = topology.sink_napi();
    let watched = Watched { process: Some(relay.id()), sink: napi, generator: napi };
    let before = watched.read()?;
    for (socket, datagram) in sockets.iter().zip(datagrams) {
        socket.send(datagram)?;
    }
    let mut buffer = [0; 2048];
    let answers = sockets
        .iter()
        .map(|socket| {
            let len = socket.recv(&mut buffer).context("the relay does not answer")?;
            Ok(buffer[..len].to_vec())
        })
        .collect::<anyhow::Result<_>>()?;
    let used = watched.read()?.since(&before);
    Ok((used.busy * used.wall, answers))
}

/// The answer to a HELLO.
pub(super) fn challenge(socket: &UdpSocket, nonce: Nonce) -> anyhow::Result<Vec<u8>> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let hello = Hello { version_min: 1, version_max: 1, nonce }.encode();
    let mut buffer = [0; 2048];
    for _ in 0..4 {
        socket.send(&hello)?;
        if let Ok(len) = socket.recv(&mut buffer) {
            return Ok(buffer[..len].to_vec());
        }
    }
    bail!("the relay does not answer HELLO")
}

fn bind(
    relay: &Relay,
    session: u64,
    client: u32,
    nonce: Nonce,
    challenge: &[u8],
) -> anyhow::Result<(Vec<u8>, Initiator)> {
    let challenge = Challenge::decode(challenge).context("CHALLENGE")?;
    ensure!(challenge.nonce == nonce, "a challenge for another HELLO");
    let private: [u8; 32] = random()?;
    let ticket = TicketBody {
        key_id: KeyId(1),
        pool: POOL,
        session: SessionId(session | u64::from(client / 4)),
        member: member((client % 4 + 1) as u8)?,
        generation: Generation(1),
        rate_class: UNLIMITED,
        key: TunnelKey(PublicKey::from(&StaticSecret::from(private)).to_bytes()),
        relays: [RELAY, RelayId(0), RelayId(0)],
        not_before: unix_s() - 5,
        expires: unix_s() + 600,
    };
    let ticket = ticket.sign(&relay.signing_key);
    let request = BindRequest { ticket, instance: random()?, stamp: 1 };
    let (initiator, noise) = Initiator::start(
        &private,
        &challenge.certificate.key,
        (challenge.nonce, challenge.cookie, RELAY),
        &request.encode(),
        random()?,
    )
    .context("the handshake")?;
    Ok((Bind { nonce, cookie: challenge.cookie, noise: &noise }.encode(), initiator))
}

/// Seconds for four Diffie-Hellmans, two public keys made and one strict verification of a ticket.
fn floor() -> f64 {
    const TIMES: u32 = 300;
    let (private, point) = ([0x77; 32], MontgomeryPoint::mul_base_clamped([0x66; 32]));
    let key = SigningKey::from_bytes(&[0x55; 32]);
    let message = [3; 93];
    let signature = key.sign(&message);
    let public = key.verifying_key().to_bytes();
    let begin = Instant::now();
    for _ in 0..TIMES {
        for _ in 0..4 {
            black_box(black_box(point).mul_clamped(black_box(private)));
        }
        for _ in 0..2 {
            black_box(MontgomeryPoint::mul_base_clamped(black_box(private)));
        }
        let verified = VerifyingKey::from_bytes(black_box(&public))
            .and_then(|key| key.verify_strict(black_box(&message), &signature));
        assert!(black_box(verified).is_ok(), "the floor verifies a signature that is good");
    }
    begin.elapsed().as_secs_f64() / f64::from(TIMES)
}
