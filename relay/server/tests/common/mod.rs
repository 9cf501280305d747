//! A relay that enrolled once with a control that is gone, and a small client over real sockets.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod mutate;
pub mod namespace;
pub mod traffic;
pub mod vitals;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use lanrage_proto::datagram::{Kind, kind};
use lanrage_proto::frame::bind::{Bind, BindRequest, BindResult, Bound, Lease, Refusal};
use lanrage_proto::frame::challenge::Challenge;
use lanrage_proto::frame::control::{Message, Sealed};
use lanrage_proto::frame::data::Sent;
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::frame::resume::{Resume, Resumed};
use lanrage_proto::frame::{Cookie, Nonce};
use lanrage_proto::handshake::Initiator;
use lanrage_proto::ids::{
    Destination, Generation, KeyId, Member, PoolId, RateClass, RelayId, SessionId,
};
use lanrage_proto::map::{RelayEntry, RelayMap, SigningKeyEntry, root_hash};
use lanrage_proto::signed::{RelayCertificate, TicketBody};
use lanrage_proto::{DeviceKey, Signature, TunnelKey};
use lanrage_relay::config::BackendSetting;
use lanrage_relay::state::{Enrolment, StateDir, Told};
use lanrage_relay::{Settings, Started, Stop};
use lanrage_relay_uring::BackendKind;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;
use x25519_dalek::{PublicKey, StaticSecret};

pub const RELAY: RelayId = RelayId(7);
pub const POOL: PoolId = PoolId(3);

pub fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[0x44; 32])
}

pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Fills a state directory as enrolling and one stream from control do.
pub fn prepare(dir: &Path) {
    prepare_all(&[(RELAY, dir, "127.0.0.1:51820".parse().unwrap())]);
}

/// Fills the state directories of relays of one map.
pub fn prepare_all(relays: &[(RelayId, &Path, SocketAddrV4)]) {
    let root = SigningKey::from_bytes(&[0x45; 32]);
    let pinned = root_hash(&DeviceKey(root.verifying_key().to_bytes()));
    let prepared = relays.iter().map(|(relay, dir, at)| {
        let state = StateDir::open(dir).unwrap();
        let unsigned = RelayCertificate {
            key_id: KeyId(1),
            pool: POOL,
            relay: *relay,
            ipv4: Some(*at),
            ipv6: None,
            key: state.keys().unwrap().tunnel_key(),
            not_after: unix_s() + 86_400,
            signature: Signature([0; 64]),
        };
        (state, unsigned.sign(&signing_key()))
    });
    let prepared: Vec<_> = prepared.collect();
    let entries = prepared.iter().map(|(_, certificate)| RelayEntry {
        name: format!("relay{}", certificate.relay),
        certificate: *certificate,
        tls: None,
    });
    let map = RelayMap {
        serial: 1,
        issued: unix_s(),
        pool: POOL,
        signing_keys: vec![SigningKeyEntry {
            id: KeyId(1),
            key: DeviceKey(signing_key().verifying_key().to_bytes()),
        }],
        relays: entries.collect(),
    };
    for (state, certificate) in prepared {
        let relay = certificate.relay;
        state.set_enrolment(&Enrolment { root: pinned, relay, pool: POOL, token: None }).unwrap();
        let (certificate, map) = (Some(certificate), Some(map.sign(&root)));
        state.set_told(&Told { certificate, map, ..Told::default() }).unwrap();
    }
}

/// That nobody has now.
pub fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks again and again, for ten seconds.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..200 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited in vain for {what}");
}

/// A relay: in this process, or the program.
pub struct Relay {
    pub started: Started,
    pub process: Option<Child>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    pub fn start(dir: &Path, backend: BackendSetting) -> Self {
        Self::start_with(dir, Settings { backend: Some(backend), ..Settings::default() })
    }

    /// See [`Relay::launch`]; waits until it is ready.
    pub fn start_with(dir: &Path, settings: Settings) -> Self {
        let relay = Self::launch(dir, settings);
        relay.until(|page| page.contains("lanrage_relay_ready 1"));
        relay
    }

    /// Where the settings leave something out, two shards on free ports of loopback.
    pub fn launch(dir: &Path, settings: Settings) -> Self {
        let settings = settings.or(Settings {
            state_dir: Some(dir.to_owned()),
            listen: Some(vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()]),
            advertise: Some(Vec::new()),
            shards: Some(2),
            leases: Some(1024),
            metrics_listen: Some("127.0.0.1:0".to_owned()),
            ..Settings::default()
        });
        let config = settings.resolve(None).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut stopped = Some(stopped);
            let stop = async move || {
                let _ = stopped.take().expect("asked once").await;
                Stop::AtOnce
            };
            let started = |started: &Started| ready.send(started.clone()).unwrap();
            runtime.block_on(lanrage_relay::run(config, stop, started)).unwrap();
        });
        let started = is_ready.recv_timeout(Duration::from_secs(20)).expect("the relay starts");
        Self { started, process: None, stop: Some(stop), thread: Some(thread) }
    }

    /// The program, in a namespace of its own, where its usual ports are free.
    pub fn spawn(dir: &Path, arguments: &[&str]) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_lanrage-relay"))
            .args(["run", "--listen", "127.0.0.1:51820,[::1]:51820", "--shards", "2"])
            .args(arguments)
            .env("LANRAGE_RELAY_STATE_DIR", dir)
            .spawn()
            .unwrap();
        let started = Started {
            listen: vec!["127.0.0.1:51820".parse().unwrap(), "[::1]:51820".parse().unwrap()],
            streams: Vec::new(),
            metrics: Some("127.0.0.1:9581".parse().unwrap()),
            backend: BackendKind::Mmsg,
        };
        eventually("metrics", || TcpStream::connect(started.metrics.unwrap()).is_ok());
        let relay = Self { started, process: Some(process), stop: None, thread: None };
        relay.until(|page| page.contains("lanrage_relay_ready 1"));
        relay
    }

    /// Every sample of the metrics, by its whole name.
    pub fn page(&self) -> BTreeMap<String, f64> {
        let page = self.get("/metrics");
        let samples = page.lines().filter(|line| line.starts_with("lanrage_"));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        samples.map(sample).collect()
    }

    /// Has an operator say something; of the program, started with `dir`.
    pub fn ctl(&self, dir: &Path, arguments: &[&str]) {
        let done = Command::new(env!("CARGO_BIN_EXE_lanrage-relay"))
            .arg("ctl")
            .args(arguments)
            .env("LANRAGE_RELAY_ADMIN_SOCKET", dir.join("admin.sock"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Of the program.
    pub fn vitals(&self) -> vitals::Vitals {
        vitals::Vitals::of(self.process.as_ref().unwrap().id())
    }

    /// Of the program.
    pub fn signal(&self, signal: Signal) {
        self::signal(self.process.as_ref().unwrap(), signal);
    }

    pub fn ipv4(&self) -> SocketAddr {
        self.started.listen[0]
    }

    pub fn ipv6(&self) -> SocketAddr {
        self.started.listen[1]
    }

    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.started.metrics.unwrap()).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Scrapes until the page is as wanted, for a few seconds.
    pub fn until(&self, wanted: impl Fn(&str) -> bool) -> String {
        for _ in 0..100 {
            let page = self.get("/metrics");
            if wanted(&page) {
                return page;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the metrics did not become as wanted:\n{}", self.get("/metrics"));
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }

    pub fn stop(mut self) {
        self.stop.take();
        if let Some(mut process) = self.process.take() {
            signal(&process, Signal::INT);
            assert!(process.wait().unwrap().success());
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn granted(result: BindResult) -> Result<Lease, Refusal> {
    match result {
        BindResult::Lease(lease) => Ok(*lease),
        BindResult::Refused { reason, .. } => Err(reason),
    }
}

/// What a relay says to [`Client::resume`].
pub fn resumed(answer: &[u8], lease: &Lease, cookie: Cookie) -> Result<Lease, Refusal> {
    granted(Resumed::decode(answer).unwrap().open(&lease.resumption_key, cookie).unwrap())
}

fn signal(process: &Child, signal: Signal) {
    let pid = Pid::from_raw(process.id().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// A test that fails leaves no program behind.
impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// One member's client.
pub struct Client {
    pub socket: UdpSocket,
    relay: SocketAddr,
    pub session: SessionId,
    pub member: Member,
    stamp: u64,
}

impl Client {
    pub fn new(relay: SocketAddr, member: u8) -> Self {
        Self::at(relay.ip(), relay, member)
    }

    /// With this address.
    pub fn at(ip: IpAddr, relay: SocketAddr, member: u8) -> Self {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.connect(relay).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let member = Member::new(member).unwrap();
        Self { socket, relay, session: SessionId(0xabc), member, stamp: 0 }
    }

    /// Goes on from a new port.
    pub fn move_away(&mut self) {
        let ip = self.socket.local_addr().unwrap().ip();
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.connect(self.relay).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        self.socket = socket;
    }

    pub fn ask(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        self.socket.send(datagram).unwrap();
        self.receive()
    }

    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        self.socket.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec())
    }

    pub fn challenge(&self) -> Challenge {
        let mut nonce = Nonce([0; 16]);
        getrandom::fill(&mut nonce.0).unwrap();
        let hello = Hello { version_min: 1, version_max: 1, nonce };
        let challenge = Challenge::decode(&self.ask(&hello.encode()).unwrap()).unwrap();
        assert_eq!(challenge.nonce, nonce);
        challenge
    }

    /// Asks until there is an answer: nobody may be there yet, or the binder's time for HELLO used up.
    pub fn challenge_at_last(&self) -> Challenge {
        let mut nonce = Nonce([0; 16]);
        getrandom::fill(&mut nonce.0).unwrap();
        let hello = Hello { version_min: 1, version_max: 1, nonce };
        loop {
            let _ = self.socket.send(&hello.encode());
            match self.receive() {
                Some(answer) if kind(&answer) == Kind::Challenge => {
                    return Challenge::decode(&answer).unwrap();
                }
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// A RESUME of the lease, ready to send, and the cookie that its answer needs.
    pub fn resume(&self, lease: &Lease) -> (Vec<u8>, Cookie) {
        let Challenge { nonce, cookie, .. } = self.challenge();
        let (ticket, key) = (&lease.resumption_ticket, &lease.resumption_key);
        (Resume::new(nonce, cookie, ticket, key, RELAY).encode(), cookie)
    }

    pub fn bind(&mut self) -> Lease {
        self.try_bind().unwrap_or_else(|reason| panic!("refused: {}", reason.as_str()))
    }

    pub fn try_bind(&mut self) -> Result<Lease, Refusal> {
        self.bind_with(|_, _| {})
    }

    /// With another ticket, instance or stamp; the ticket is signed afterwards.
    pub fn bind_with(
        &mut self,
        change: impl FnOnce(&mut TicketBody, &mut ([u8; 16], u64)),
    ) -> Result<Lease, Refusal> {
        self.stamp += 1;
        let challenge = self.challenge();
        let who = (self.session, self.member);
        let (bind, mut initiator) = bind_frame_with(&challenge, who, self.stamp, change);
        let answer = self.ask(&bind).unwrap();
        let payload = initiator.finish(Bound::decode(&answer).unwrap().noise).unwrap();
        granted(BindResult::decode(&payload).unwrap())
    }

    pub fn frame(&self, lease: &Lease, destination: Destination, payload: &[u8]) -> Vec<u8> {
        self.frame_by(RelayId(0), lease, destination, payload)
    }

    /// A frame that another relay is to deliver.
    pub fn frame_by(
        &self,
        egress: RelayId,
        lease: &Lease,
        destination: Destination,
        payload: &[u8],
    ) -> Vec<u8> {
        let sent = Sent::new(egress, destination, self.member, lease.handle, lease.tag);
        [sent.encode().as_slice(), payload].concat()
    }

    /// A self-addressed frame; whether it came back.
    pub fn probe(&self, lease: &Lease) -> bool {
        let frame = self.frame(lease, Destination::One(self.member), b"probe");
        self.ask(&frame).is_some_and(|back| back.ends_with(b"probe"))
    }

    pub fn control(&self, lease: &Lease, message: Message, counter: u64) -> Option<Message> {
        let frame = message.seal(&lease.key_to_relay, lease.handle, counter);
        let answer = self.ask(&frame)?;
        Sealed::decode(&answer).ok()?.open(&lease.key_to_client).ok()
    }
}

/// A BIND of a member of the one session, with the key that its number is.
pub fn bind_frame(
    challenge: &Challenge,
    who: (SessionId, Member),
    stamp: u64,
) -> (Vec<u8>, Initiator) {
    bind_frame_with(challenge, who, stamp, |_, _| {})
}

/// With another ticket, instance or stamp; the ticket is signed afterwards.
fn bind_frame_with(
    challenge: &Challenge,
    (session, member): (SessionId, Member),
    stamp: u64,
    change: impl FnOnce(&mut TicketBody, &mut ([u8; 16], u64)),
) -> (Vec<u8>, Initiator) {
    let private = [member.number(); 32];
    let relay = challenge.certificate.relay;
    let mut ticket = TicketBody {
        key_id: KeyId(1),
        pool: POOL,
        session,
        member,
        generation: Generation(1),
        rate_class: RateClass(0),
        key: TunnelKey(PublicKey::from(&StaticSecret::from(private)).to_bytes()),
        relays: [relay, RelayId(0), RelayId(0)],
        not_before: unix_s() - 5,
        expires: unix_s() + 600,
    };
    let mut claim = ([member.number(); 16], stamp);
    change(&mut ticket, &mut claim);
    let (instance, stamp) = claim;
    let request = BindRequest { ticket: ticket.sign(&signing_key()), instance, stamp };
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    let &Challenge { nonce, cookie, certificate } = challenge;
    let exchange = (nonce, cookie, relay);
    let (initiator, noise) =
        Initiator::start(&private, &certificate.key, exchange, &request.encode(), seed).unwrap();
    (Bind { nonce, cookie, noise: &noise }.encode(), initiator)
}
