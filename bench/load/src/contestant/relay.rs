//! The relay, with leases that its clients bound by the protocol.

use std::net::{SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use ed25519_dalek::SigningKey;
use lanrage_proto::frame::Nonce;
use lanrage_proto::frame::bind::{Bind, BindRequest, BindResult, Bound, Lease};
use lanrage_proto::frame::challenge::Challenge;
use lanrage_proto::frame::data::Sent;
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::handshake::Initiator;
use lanrage_proto::ids::{
    Destination, Generation, KeyId, Member, PoolId, RateClass, RelayId, SessionId,
};
use lanrage_proto::map::{RelayMap, SigningKeyEntry, root_hash};
use lanrage_proto::signed::{RelayCertificate, TicketBody};
use lanrage_proto::{DeviceKey, Signature, TunnelKey};
use lanrage_relay::state::{Enrolment, StateDir, Told};
use lanrage_relay_uring::BackendKind;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{Kept, Running, START_PATIENCE};
use crate::topology::Topology;
use crate::workload::Workload;

const RELAY: RelayId = RelayId(7);
const POOL: PoolId = PoolId(3);
/// No limits: the rate class that exists for measuring.
const RATE_CLASS: RateClass = RateClass(2);
const BIND_PATIENCE: Duration = Duration::from_millis(500);

pub(super) fn start(
    kind: BackendKind,
    topology: &Topology,
    workload: &Workload,
) -> anyhow::Result<Running> {
    let directory = topology.directory()?;
    let signing_key = SigningKey::from_bytes(&random()?);
    prepare(directory.path(), &signing_key, topology.road().relay)?;
    let program = crate::binaries::beside(&std::env::current_exe()?, "lanrage-relay")?;
    let mut command = topology.command(&program.display().to_string());
    let backend = match kind {
        BackendKind::Uring => "io_uring",
        BackendKind::Mmsg => "recvmmsg",
    };
    let listen = topology.road().relay.to_string();
    command.args(["run", "--listen", &listen, "--backend", backend, "--shards", "1"]);
    command.args(["--leases", &workload.leases().max(64).to_string(), "--metrics-listen", "off"]);
    command.arg("--state-dir").arg(directory.path());
    let mut process = topology.host().spawn("relay", command)?;
    process.wait_for_log("serving", START_PATIENCE)?;
    let leases = topology.enter(|| bind_all(topology.road().relay, workload, &signing_key))??;
    let memberships: Vec<(u32, u8)> = workload.memberships().collect();
    let prefixes = workload
        .flows()
        .map(|flow| {
            let (source, target) = (flow.source as usize, flow.target as usize);
            frame(&leases[source], memberships[source].1, memberships[target].1)
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(Running {
        process: Some(process),
        _kept: Some(Kept::Directory(directory)),
        prefixes,
        answer_prefix_len: 16,
    })
}

/// Fills a state directory as enrolling and one stream from control do.
fn prepare(directory: &Path, signing_key: &SigningKey, relay: SocketAddrV4) -> anyhow::Result<()> {
    let state = StateDir::open(directory)?;
    let keys = state.keys()?;
    let root = SigningKey::from_bytes(&random()?);
    let key = DeviceKey(signing_key.verifying_key().to_bytes());
    let map = RelayMap {
        serial: 1,
        issued: unix_s(),
        pool: POOL,
        signing_keys: vec![SigningKeyEntry { id: KeyId(1), key }],
        relays: Vec::new(),
    };
    let certificate = RelayCertificate {
        key_id: KeyId(1),
        pool: POOL,
        relay: RELAY,
        ipv4: Some(relay),
        ipv6: None,
        key: keys.tunnel_key(),
        not_after: unix_s() + 86_400,
        signature: Signature([0; 64]),
    };
    let root_hash = root_hash(&DeviceKey(root.verifying_key().to_bytes()));
    let enrolment = Enrolment { root: root_hash, relay: RELAY, pool: POOL, token: None };
    state.set_enrolment(&enrolment)?;
    state.set_told(&Told {
        certificate: Some(certificate.sign(signing_key)),
        map: Some(map.sign(&root)),
        ..Told::default()
    })?;
    Ok(())
}

fn bind_all(
    relay: SocketAddrV4,
    workload: &Workload,
    signing_key: &SigningKey,
) -> anyhow::Result<Vec<Lease>> {
    workload
        .addresses()
        .zip(workload.memberships())
        .map(|(address, (session, member))| {
            let client = Client { relay, address, session, member };
            client.bind(signing_key).with_context(|| format!("binding {address}"))
        })
        .collect()
}

/// One member, for as long as it takes to bind.
struct Client {
    relay: SocketAddrV4,
    address: SocketAddrV4,
    session: u32,
    member: u8,
}

impl Client {
    /// Binds, and confirms the lease by a first frame.
    fn bind(&self, signing_key: &SigningKey) -> anyhow::Result<Lease> {
        let socket = UdpSocket::bind(self.address)?;
        socket.connect(self.relay)?;
        socket.set_read_timeout(Some(BIND_PATIENCE))?;
        let private: [u8; 32] = random()?;
        let nonce = Nonce(random()?);
        let hello = Hello { version_min: 1, version_max: 1, nonce };
        let answer = ask(&socket, &hello.encode()).context("HELLO")?;
        let challenge = Challenge::decode(&answer).context("CHALLENGE")?;
        let ticket = TicketBody {
            key_id: KeyId(1),
            pool: POOL,
            session: SessionId(u64::from(self.session) + 1),
            member: member(self.member)?,
            generation: Generation(1),
            rate_class: RATE_CLASS,
            key: TunnelKey(PublicKey::from(&StaticSecret::from(private)).to_bytes()),
            relays: [RELAY, RelayId(0), RelayId(0)],
            not_before: unix_s() - 5,
            expires: unix_s() + 600,
        };
        let request =
            BindRequest { ticket: ticket.sign(signing_key), instance: random()?, stamp: 1 };
        let (mut initiator, noise) = Initiator::start(
            &private,
            &challenge.certificate.key,
            (challenge.nonce, challenge.cookie, RELAY),
            &request.encode(),
            random()?,
        )
        .context("the handshake")?;
        let bind = Bind { nonce, cookie: challenge.cookie, noise: &noise }.encode();
        let answer = ask(&socket, &bind).context("BIND")?;
        let bound = Bound::decode(&answer).context("BOUND")?;
        let payload = initiator.finish(bound.noise).context("BOUND")?;
        let lease = match BindResult::decode(&payload).context("BOUND")? {
            BindResult::Lease(lease) => *lease,
            BindResult::Refused { reason, .. } => bail!("refused: {}", reason.as_str()),
        };
        let probe = frame(&lease, self.member, self.member)?;
        ask(&socket, &probe).context("the first frame")?;
        Ok(lease)
    }
}

fn ask(socket: &UdpSocket, datagram: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut buffer = [0; 2048];
    for _ in 0..4 {
        socket.send(datagram)?;
        if let Ok(len) = socket.recv(&mut buffer) {
            return Ok(buffer[..len].to_vec());
        }
    }
    bail!("the relay does not answer")
}

fn frame(lease: &Lease, source: u8, target: u8) -> anyhow::Result<Vec<u8>> {
    let (source, target) = (member(source)?, Destination::One(member(target)?));
    Ok(Sent::new(RelayId(0), target, source, lease.handle, lease.tag).encode().to_vec())
}

fn member(number: u8) -> anyhow::Result<Member> {
    Member::new(number).context("a member number of 1 to 250")
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
