//! The real service on loopback, and devices and relays that talk to it over real TLS.

use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use ed25519_dalek::SigningKey;
use lanrage_control::{Cli, Clock, Config, Options, Server, StateDir, execute};
use lanrage_control_client::{Connection, ControlClient, Endpoint, Error, Method, WebSocket};
use lanrage_proto::api::{
    CreateInvite, CreateParty, DEVICE_PROOF_CONTEXT, DeviceDown, DeviceUp, ENROLMENT_PROOF_CONTEXT,
    Enrolled, Enrolment, EnrolmentToken, ErrorCode, Heartbeat, InviteInfo, Kick, Kicked,
    Membership, PublishEntry, RELAY_PROOF_CONTEXT, RedeemInvite, RegisterDevice, Registered,
    RelayDown, RelayUp, path,
};
use lanrage_proto::bytes::Token;
use lanrage_proto::map::{RelayMap, SignedMap};
use lanrage_proto::party::{EntryBody, EpochCopy, InviteKey, commitment};
use lanrage_proto::signed::{KickRecord, sign};
use lanrage_proto::{
    DeviceKey, Epoch, Generation, Member, PartySecret, RelayId, SessionId, TunnelKey,
};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// What every test's party has as its first secret.
pub(crate) const SECRET: PartySecret = PartySecret([1; 32]);

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

pub(crate) fn rng() -> ChaCha8Rng {
    ChaCha8Rng::from_seed(random())
}

/// A running service in its own state directory.
pub(crate) struct Service {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) server: Server,
    pub(crate) clock: Clock,
    pub(crate) config: Config,
}

pub(crate) fn config(dir: &Path) -> Config {
    let options = Options {
        dir: Some(dir.to_owned()),
        listen: Some(vec!["127.0.0.1:0".parse().unwrap()]),
        metrics_listen: Some("127.0.0.1:0".to_owned()),
        requests_per_minute: Some(0),
        ..Options::default()
    };
    options.resolve(None).unwrap()
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        let clock = Clock::default();
        let server = Server::start(&config, clock.clone()).await.unwrap();
        Self { dir, server, clock, config }
    }

    /// With one relay that serves.
    pub(crate) async fn with_relay() -> (Self, Relay) {
        let service = Self::start().await;
        let relay = Relay::enrol(&service, "one").await;
        (service, relay)
    }

    /// Stops and starts again on the same directory and clock.
    pub(crate) async fn restart(self) -> Self {
        self.restart_after(|_, _| {}).await
    }

    /// Stops, does something to the state directory, and starts again.
    pub(crate) async fn restart_after(self, change: impl FnOnce(&Path, &Clock)) -> Self {
        let Self { dir, server, clock, config } = self;
        server.stop().await;
        change(dir.path(), &clock);
        let server = Server::start(&config, clock.clone()).await.unwrap();
        Self { dir, server, clock, config }
    }

    /// The relay map that it serves.
    pub(crate) async fn map(&self) -> RelayMap {
        let connection = self.client().connect(DEADLINE).await.unwrap();
        let map: SignedMap =
            connection.request(Method::GET, path::MAP, None, &(), DEADLINE).await.unwrap();
        map.verify(&self.endpoint().root).unwrap()
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        let root = StateDir::open(self.dir.path()).unwrap().root_hash();
        let port = self.server.addresses()[0].port();
        Endpoint { host: "127.0.0.1".to_owned(), port, root }
    }

    pub(crate) fn client(&self) -> ControlClient {
        ControlClient::new(self.endpoint())
    }

    pub(crate) async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.server.run_jobs().await.unwrap();
    }

    /// Runs a command of the program on the directory of the running service.
    pub(crate) async fn command(&self, arguments: &[&str]) -> String {
        let dir = self.dir.path().to_str().unwrap();
        let all = [&["lanrage-control", "--dir", dir], arguments].concat();
        execute(Cli::parse_from(all)).await.unwrap()
    }
}

/// A device with an open connection and a token.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) key: SigningKey,
    pub(crate) tunnel: StaticSecret,
    pub(crate) client: ControlClient,
    pub(crate) connection: Connection,
    pub(crate) token: Token,
}

pub(crate) fn proof_of(key: &SigningKey, channel_binding: &[u8; 32]) -> RegisterDevice {
    RegisterDevice {
        device: DeviceKey(key.verifying_key().to_bytes()),
        proof: sign(key, DEVICE_PROOF_CONTEXT, channel_binding),
    }
}

impl Device {
    pub(crate) async fn register(service: &Service) -> Self {
        Self::register_key(service, SigningKey::from_bytes(&random())).await
    }

    pub(crate) async fn register_key(service: &Service, key: SigningKey) -> Self {
        let client = service.client();
        let connection = client.connect(DEADLINE).await.unwrap();
        let proof = proof_of(&key, &connection.channel_binding());
        let answer = connection.request(Method::POST, path::DEVICES, None, &proof, DEADLINE).await;
        let Registered { token, now } = answer.unwrap();
        assert!(now.abs_diff(service.clock.now()) <= 1);
        Self { key, tunnel: StaticSecret::from(random::<32>()), client, connection, token }
    }

    pub(crate) fn id(&self) -> DeviceKey {
        DeviceKey(self.key.verifying_key().to_bytes())
    }

    pub(crate) fn tunnel_key(&self) -> TunnelKey {
        TunnelKey(PublicKey::from(&self.tunnel).to_bytes())
    }

    pub(crate) async fn send<T: Serialize, R: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &T,
    ) -> Result<R, Error> {
        self.connection.request(method, path, Some(&self.token), body, DEADLINE).await
    }

    pub(crate) async fn post<T: Serialize, R: DeserializeOwned>(
        &self,
        path: &str,
        body: &T,
    ) -> Result<R, Error> {
        self.send(Method::POST, path, body).await
    }

    pub(crate) async fn in_party<T: Serialize, R: DeserializeOwned>(
        &self,
        template: &str,
        session: SessionId,
        body: &T,
    ) -> Result<R, Error> {
        self.post(&path::of_party(template, session), body).await
    }

    pub(crate) async fn create_party(&self) -> Membership {
        self.post(path::PARTIES, &self.party_request()).await.unwrap()
    }

    pub(crate) fn party_request(&self) -> CreateParty {
        CreateParty {
            name: "party".to_owned(),
            member_name: "owner".to_owned(),
            tunnel: self.tunnel_key(),
            subnet: None,
            request: random(),
        }
    }

    /// An invite for `uses` devices at the first epoch; fails when control refuses.
    pub(crate) async fn invite(
        &self,
        session: SessionId,
        epoch: u32,
        uses: u16,
    ) -> Result<InviteKey, Error> {
        let key = InviteKey(Zeroizing::new(random()));
        let request = invite_request(&key, session, epoch, uses);
        let _: InviteInfo = self.in_party(path::INVITES, session, &request).await?;
        Ok(key)
    }

    pub(crate) async fn redeem(&self, key: &InviteKey, name: &str) -> Result<Membership, Error> {
        self.post(path::INVITE_REDEEM, &self.redemption(key, name)).await
    }

    pub(crate) fn redemption(&self, key: &InviteKey, name: &str) -> RedeemInvite {
        RedeemInvite { invite: key.hash(), tunnel: self.tunnel_key(), member_name: name.to_owned() }
    }

    pub(crate) fn entry(&self, party: &lanrage_proto::api::PartyState, name: &str) -> PublishEntry {
        let me = party.members.iter().find(|member| member.member == party.you).unwrap();
        let body = EntryBody {
            session: party.session,
            member: party.you,
            generation: me.generation,
            name: name.to_owned(),
            device: self.id(),
            tunnel: self.tunnel_key(),
        };
        PublishEntry { entry: body.sign(&self.key, &SECRET, party.epoch) }
    }

    pub(crate) async fn publish(&self, party: &lanrage_proto::api::PartyState) {
        let me = party.members.iter().find(|member| member.member == party.you).unwrap();
        let request = self.entry(party, &me.name);
        let path = path::of_party(path::ENTRY, party.session);
        let _: serde_json::Value = self.send(Method::PUT, &path, &request).await.unwrap();
    }

    /// Kicks as an honest client does: copies and MACs for all who remain.
    pub(crate) async fn kick(
        &self,
        party: &lanrage_proto::api::PartyState,
        target: Member,
    ) -> Result<Kicked, Error> {
        self.in_party(path::KICK, party.session, &self.kick_request(party, target)).await
    }

    pub(crate) fn kick_request(
        &self,
        party: &lanrage_proto::api::PartyState,
        target: Member,
    ) -> Kick {
        let new = PartySecret([2; 32]);
        let epoch = party.epoch.next();
        let generation = party.members.iter().find(|m| m.member == target).unwrap().generation;
        let (mut copies, mut macs) = (Vec::new(), Vec::new());
        for member in party.members.iter().filter(|member| member.member != target) {
            let Some(entry) = member.entry.clone() else { continue };
            let to = (member.member, &entry.body.tunnel);
            if member.member != party.you {
                let copy = EpochCopy::seal(
                    party.session,
                    (epoch, &new),
                    Some((party.epoch, &SECRET)),
                    (party.you, &self.tunnel),
                    to,
                    &mut rng(),
                );
                copies.push(copy.unwrap());
            }
            let mac = entry.vouch(&new, epoch).mac;
            let generation = member.generation;
            macs.push(lanrage_proto::api::EntryMac { member: member.member, generation, mac });
        }
        let commitment = commitment(&new, party.session, epoch);
        Kick { member: target, generation, epoch, commitment, copies, macs }
    }

    /// What a snapshot tells of the device's own kicks.
    pub(crate) async fn put_out(&self) -> Vec<KickRecord> {
        let mut stream = Stream::open(self, None).await;
        let DeviceDown::Snapshot { put_out, .. } = stream.next().await else {
            panic!("expected a snapshot")
        };
        stream.0.close().await;
        put_out
    }

    pub(crate) async fn state(&self, session: SessionId) -> lanrage_proto::api::PartyState {
        let mut stream = Stream::open(self, None).await;
        let (_, parties) = stream.snapshot().await;
        stream.0.close().await;
        parties.into_iter().find(|party| party.session == session).unwrap()
    }
}

pub(crate) fn invite_request(
    key: &InviteKey,
    session: SessionId,
    epoch: u32,
    uses: u16,
) -> CreateInvite {
    CreateInvite {
        invite: key.hash(),
        sealed: key.seal(session, Epoch(epoch), &SECRET, &mut rng()),
        epoch: Epoch(epoch),
        lifetime_s: 3_600,
        uses,
    }
}

/// A device's stream.
pub(crate) struct Stream(pub(crate) WebSocket);

impl Stream {
    pub(crate) async fn open(device: &Device, cursor: Option<u64>) -> Self {
        let stream = device.client.websocket(path::STREAM, Some(&device.token), DEADLINE).await;
        let mut stream = stream.unwrap();
        stream.send(&DeviceUp::Follow { cursor }).await.unwrap();
        Self(stream)
    }

    pub(crate) async fn next(&mut self) -> DeviceDown {
        let message = tokio::time::timeout(DEADLINE, self.0.receive()).await;
        message.expect("control says something").unwrap().expect("the stream is open")
    }

    pub(crate) async fn snapshot(&mut self) -> (u64, Vec<lanrage_proto::api::PartyState>) {
        match self.next().await {
            DeviceDown::Snapshot { cursor, parties, map, now, .. } => {
                assert!(!map.map.is_empty() && now > 0);
                (cursor, parties)
            }
            other @ DeviceDown::Delta { .. } => panic!("expected a snapshot: {other:?}"),
        }
    }

    pub(crate) async fn delta(&mut self) -> (u64, lanrage_proto::api::Change) {
        match self.next().await {
            DeviceDown::Delta { cursor, change } => (cursor, *change),
            other @ DeviceDown::Snapshot { .. } => panic!("expected a delta: {other:?}"),
        }
    }

    pub(crate) async fn change(&mut self) -> lanrage_proto::api::Change {
        self.delta().await.1
    }
}

/// A relay with its stream.
pub(crate) struct Relay {
    pub(crate) id: RelayId,
    pub(crate) identity: SigningKey,
    pub(crate) stream: WebSocket,
}

pub(crate) const RELAY_IPV4: SocketAddrV4 =
    SocketAddrV4::new(std::net::Ipv4Addr::new(192, 0, 2, 1), 51820);

pub(crate) async fn relay_token(service: &Service) -> EnrolmentToken {
    service.command(&["relay", "token"]).await.trim().parse().unwrap()
}

pub(crate) fn enrolment(
    token: Token,
    name: &str,
    identity: &SigningKey,
    connection: &Connection,
) -> Enrolment {
    Enrolment {
        token,
        name: name.to_owned(),
        identity: DeviceKey(identity.verifying_key().to_bytes()),
        proof: sign(identity, ENROLMENT_PROOF_CONTEXT, &connection.channel_binding()),
        key: TunnelKey(random()),
        ipv4: Some(RELAY_IPV4),
        ipv6: None,
    }
}

impl Relay {
    pub(crate) async fn enrol(service: &Service, name: &str) -> Self {
        let token = relay_token(service).await;
        assert_eq!(token.root, service.endpoint().root);
        let identity = SigningKey::from_bytes(&random());
        let connection = service.client().connect(DEADLINE).await.unwrap();
        let request = enrolment(token.secret, name, &identity, &connection);
        let answer = connection.request(Method::POST, path::ENROL, None, &request, DEADLINE).await;
        let Enrolled { relay, .. } = answer.unwrap();
        let mut relay = Self::connect(service, relay, identity, 0).await.unwrap();
        relay.until(|message| matches!(message, RelayDown::Tick { .. })).await;
        relay
    }

    pub(crate) async fn connect(
        service: &Service,
        id: RelayId,
        identity: SigningKey,
        cursor: u64,
    ) -> Result<Self, Error> {
        Self::connect_from(service, id, identity, cursor, RELAY_IPV4).await
    }

    pub(crate) async fn connect_from(
        service: &Service,
        id: RelayId,
        identity: SigningKey,
        cursor: u64,
        ipv4: SocketAddrV4,
    ) -> Result<Self, Error> {
        let mut stream = service.client().websocket(path::RELAY_STREAM, None, DEADLINE).await?;
        let proof = sign(&identity, RELAY_PROOF_CONTEXT, &stream.channel_binding());
        let prove =
            RelayUp::Prove { relay: id, proof, ipv4: Some(ipv4), ipv6: None, tls: None, cursor };
        stream.send(&prove).await?;
        Ok(Self { id, identity, stream })
    }

    pub(crate) async fn next(&mut self) -> RelayDown {
        let message = tokio::time::timeout(DEADLINE, self.stream.receive()).await;
        message.expect("control says something").unwrap().expect("the stream is open")
    }

    /// The first message that fits.
    pub(crate) async fn until(&mut self, fits: impl Fn(&RelayDown) -> bool) -> RelayDown {
        loop {
            let message = self.next().await;
            if fits(&message) {
                return message;
            }
        }
    }

    pub(crate) async fn heartbeat(&mut self, leases: u64, draining: bool) {
        let heartbeat = Heartbeat {
            leases,
            sessions: 1,
            draining,
            cursor: 0,
            version: "test".to_owned(),
            now: 0,
        };
        self.stream.send(&RelayUp::Heartbeat(heartbeat)).await.unwrap();
    }
}

/// Asserts that control refuses with this code, and says something to people.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(result: Result<T, Error>, code: ErrorCode) {
    match result {
        Err(Error::Api(refusal)) => {
            assert_eq!(refusal.code, code, "{refusal:?}");
            assert!(refusal.message.len() > 10, "{refusal:?}");
        }
        other => panic!("expected {code:?}: {other:?}"),
    }
}

pub(crate) fn member(number: u8) -> Member {
    Member::new(number).unwrap()
}

pub(crate) fn generations(party: &lanrage_proto::api::PartyState) -> Vec<(u8, Generation)> {
    party.members.iter().map(|member| (member.member.number(), member.generation)).collect()
}

pub(crate) fn empty() -> serde_json::Value {
    json!({})
}

/// An owner and a guest in a party.
pub(crate) async fn party_of_two(service: &Service) -> (Device, Device, SessionId) {
    let owner = Device::register(service).await;
    let session = owner.create_party().await.party.session;
    let invite = owner.invite(session, 1, 9).await.unwrap();
    let guest = Device::register(service).await;
    guest.redeem(&invite, "guest").await.unwrap();
    (owner, guest, session)
}
