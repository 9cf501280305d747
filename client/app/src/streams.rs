//! The streams to relays that the core wants, each opened again until it wants it no more.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lanrage_control_client::{TlsStream, connect_to_key};
use lanrage_proto::RelayId;
use lanrage_proto::map::{RelayEntry, RelayMap, TlsAccess};
use lanrage_proto::stream::{ALPN, Deframer, Waiting};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::session::Backoff;

/// TCP's handshake and TLS's.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Between attempts: a network that lets TCP through again is found soon.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A stream whose data is not acknowledged for this long has no network any more; probes see to it
/// that there is data (TCP_USER_TIMEOUT, tcp(7)).
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);
/// What the kernel holds that is not sent yet: newer datagrams are worth more.
const NOT_SENT: u32 = 32 << 10;
/// Bytes that wait for a stream.
const WAITING_LEN: usize = 256 << 10;
/// Plaintext of a TLS record (RFC 8446 §5.1).
const RECORD_LEN: usize = 1 << 14;
/// Datagrams that wait for the daemon; when they are more, TCP holds the relay up.
const ARRIVED_MAX: usize = 512;
/// How long a stream that is wanted no more may take for what waits.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a stream has to tell.
#[derive(Debug)]
pub(crate) enum StreamEvent {
    /// It takes datagrams.
    Opened(RelayId),
    /// It takes none until it is open again.
    Closed(RelayId),
    /// It brought a datagram.
    Datagram(RelayId, Vec<u8>),
}

/// The streams of the active party.
#[derive(Debug)]
pub(crate) struct Streams {
    streams: BTreeMap<RelayId, Stream>,
    /// Tells a stream's events from those of the one before it.
    generation: u64,
    sender: mpsc::Sender<(u64, StreamEvent)>,
    events: mpsc::Receiver<(u64, StreamEvent)>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Stream {
    target: Target,
    generation: u64,
    outgoing: Arc<Outgoing>,
    task: JoinHandle<()>,
}

/// Where a relay serves streams.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    relay: RelayId,
    addresses: Vec<SocketAddr>,
    tls: TlsAccess,
}

/// From the daemon to a stream's task.
#[derive(Debug)]
struct Outgoing {
    waiting: Mutex<Waiting>,
    is_open: AtomicBool,
    is_over: AtomicBool,
    changed: Notify,
    dropped: Arc<AtomicU64>,
}

impl Streams {
    pub(crate) fn new() -> Self {
        let (sender, events) = mpsc::channel(ARRIVED_MAX);
        Self { streams: BTreeMap::new(), generation: 0, sender, events, dropped: Arc::default() }
    }

    /// Keeps streams to these relays and to no others.
    pub(crate) fn follow(&mut self, wanted: impl Iterator<Item = RelayId>, map: &RelayMap) {
        let targets: Vec<_> = wanted.filter_map(|relay| Target::of(map.relay(relay)?)).collect();
        self.streams.retain(|_, stream| targets.contains(&stream.target));
        for target in targets {
            if self.streams.contains_key(&target.relay) {
                continue;
            }
            self.generation += 1;
            let outgoing = Arc::new(Outgoing::new(self.dropped.clone()));
            let events = Events {
                relay: target.relay,
                generation: self.generation,
                sender: self.sender.clone(),
            };
            let task = tokio::spawn(keep_open(target.clone(), outgoing.clone(), events));
            let generation = self.generation;
            self.streams.insert(target.relay, Stream { target, generation, outgoing, task });
        }
    }

    /// Sends a datagram, or drops and counts it or those that have waited longest.
    pub(crate) fn send(&self, relay: RelayId, datagram: &[u8]) {
        match self.streams.get(&relay) {
            Some(stream) => stream.outgoing.push(datagram),
            None => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Datagrams that no stream took.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The next news; waits for ever when there is no stream.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn next(&mut self) -> StreamEvent {
        loop {
            let news = self.events.recv().await;
            if let Some(event) = news.and_then(|news| self.current(news)) {
                return event;
            }
        }
    }

    /// The next news that is there.
    pub(crate) fn try_next(&mut self) -> Option<StreamEvent> {
        loop {
            let news = self.events.try_recv().ok()?;
            if let Some(event) = self.current(news) {
                return Some(event);
            }
        }
    }

    /// Of streams that are still wanted.
    fn current(&self, (generation, event): (u64, StreamEvent)) -> Option<StreamEvent> {
        self.streams.values().any(|stream| stream.generation == generation).then_some(event)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.outgoing.is_over.store(true, Ordering::Relaxed);
        self.outgoing.changed.notify_one();
        if !self.outgoing.is_open.load(Ordering::Relaxed) {
            self.task.abort();
        }
    }
}

impl Target {
    fn of(entry: &RelayEntry) -> Option<Self> {
        let tls = entry.tls?;
        let at_port = |address: SocketAddr| SocketAddr::new(address.ip(), tls.port.get());
        let addresses = entry.certificate.addresses().map(at_port).collect();
        Some(Self { relay: entry.certificate.relay, addresses, tls })
    }
}

impl Outgoing {
    fn new(dropped: Arc<AtomicU64>) -> Self {
        Self {
            waiting: Mutex::new(Waiting::new(WAITING_LEN)),
            is_open: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            changed: Notify::new(),
            dropped,
        }
    }

    fn push(&self, datagram: &[u8]) {
        let dropped = match self.is_open.load(Ordering::Relaxed) {
            true => self.waiting().push(datagram),
            false => 1,
        };
        self.dropped.fetch_add(dropped, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// What waited for the stream before is out of date.
    fn set_open(&self, is_open: bool) {
        let lost = self.waiting().take(&mut Vec::new(), usize::MAX);
        self.dropped.fetch_add(lost, Ordering::Relaxed);
        self.is_open.store(is_open, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Every datagram is whole in the queue, or not in it.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From a stream's task to the daemon.
struct Events {
    relay: RelayId,
    generation: u64,
    sender: mpsc::Sender<(u64, StreamEvent)>,
}

impl Events {
    /// # Errors
    /// The daemon has let all streams go.
    async fn send(&self, event: StreamEvent) -> io::Result<()> {
        let sent = self.sender.send((self.generation, event)).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

async fn keep_open(target: Target, outgoing: Arc<Outgoing>, events: Events) {
    let Target { relay, addresses, tls } = target;
    let mut backoff = Backoff::default();
    while !outgoing.is_over() {
        match connect_to_key(&addresses, tls.key, ALPN, CONNECT_DEADLINE).await {
            Ok(stream) => {
                tracing::info!(%relay, port = tls.port, "a stream to the relay is open");
                backoff.reset();
                outgoing.set_open(true);
                let end = carry(stream, &outgoing, &events).await;
                outgoing.set_open(false);
                if outgoing.is_over() || events.send(StreamEvent::Closed(relay)).await.is_err() {
                    return;
                }
                if let Err(error) = end {
                    tracing::info!(%relay, %error, "the stream to the relay broke");
                }
            }
            Err(error) => {
                tracing::debug!(%relay, port = tls.port, %error, "no stream to the relay");
            }
        }
        sleep(backoff.wait().min(RETRY_PAUSE_MAX)).await;
    }
}

/// Carries datagrams both ways until the stream ends or is wanted no more.
async fn carry(
    stream: TlsStream<TcpStream>,
    outgoing: &Outgoing,
    events: &Events,
) -> io::Result<()> {
    let socket = SockRef::from(stream.get_ref().0);
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    socket.set_tcp_notsent_lowat(NOT_SENT)?;
    events.send(StreamEvent::Opened(events.relay)).await?;
    let (reader, writer) = split(stream);
    tokio::select! {
        end = receive(reader, events) => end,
        end = send(writer, outgoing) => end,
    }
}

async fn receive(mut reader: ReadHalf<TlsStream<TcpStream>>, events: &Events) -> io::Result<()> {
    let (mut deframer, mut plain) = (Deframer::default(), vec![0; RECORD_LEN]);
    let mut datagrams = Vec::new();
    loop {
        let len = reader.read(&mut plain).await?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let fed = deframer.feed(&mut plain[..len], |datagram| datagrams.push(datagram.to_vec()));
        for datagram in datagrams.drain(..) {
            events.send(StreamEvent::Datagram(events.relay, datagram)).await?;
        }
        fed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    }
}

async fn send(mut writer: WriteHalf<TlsStream<TcpStream>>, outgoing: &Outgoing) -> io::Result<()> {
    let mut plain = Vec::with_capacity(RECORD_LEN);
    loop {
        plain.clear();
        outgoing.waiting().take(&mut plain, RECORD_LEN);
        if !plain.is_empty() {
            writer.write_all(&plain).await?;
            writer.flush().await?;
        } else if outgoing.is_over() {
            return timeout(FAREWELL, writer.shutdown()).await.unwrap_or(Ok(()));
        } else {
            outgoing.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use lanrage_proto::bytes::Signature;
    use lanrage_proto::signed::RelayCertificate;
    use lanrage_proto::{DeviceKey, KeyId, PoolId, TunnelKey};

    use super::*;

    fn entry(tls: Option<TlsAccess>) -> RelayEntry {
        let certificate = RelayCertificate {
            key_id: KeyId(1),
            pool: PoolId(1),
            relay: RelayId(7),
            ipv4: Some("127.0.0.1:51820".parse().unwrap()),
            ipv6: Some("[::1]:51821".parse().unwrap()),
            key: TunnelKey([1; 32]),
            not_after: 0,
            signature: Signature([0; 64]),
        };
        RelayEntry { name: "r".into(), certificate, tls }
    }

    #[test]
    fn streams_are_at_the_certificates_addresses() {
        assert_eq!(Target::of(&entry(None)), None);
        let tls = TlsAccess { port: 443.try_into().unwrap(), key: DeviceKey([2; 32]) };
        let target = Target::of(&entry(Some(tls))).unwrap();
        let expected: [SocketAddr; 2] =
            ["127.0.0.1:443".parse().unwrap(), "[::1]:443".parse().unwrap()];
        assert_eq!(target.addresses, expected);
    }

    #[tokio::test]
    async fn what_finds_no_stream_is_counted_and_nothing_is_kept() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().try_into().unwrap();
        let tls = TlsAccess { port, key: DeviceKey([2; 32]) };
        let map = RelayMap {
            serial: 1,
            issued: 0,
            pool: PoolId(1),
            signing_keys: Vec::new(),
            relays: vec![entry(Some(tls))],
        };
        let mut streams = Streams::new();
        streams.send(RelayId(7), b"x");
        streams.follow([RelayId(7), RelayId(8)].into_iter(), &map);
        assert_eq!(streams.streams.len(), 1, "the map knows no relay 8");
        streams.send(RelayId(7), b"x");
        assert_eq!(streams.dropped(), 2, "not yet open");
        streams.follow([RelayId(7)].into_iter(), &map);
        assert_eq!(streams.generation, 1, "it goes on");
        streams.follow(std::iter::empty(), &map);
        assert!(streams.streams.is_empty() && streams.try_next().is_none());
    }
}
