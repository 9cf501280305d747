use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::Player;

/// Bytes of a datagram, its number included: a game's state update.
const DATAGRAM_LEN: usize = 120;
const RECEIVE_PATIENCE: Duration = Duration::from_millis(20);

/// Numbered datagrams from one player to another, by virtual address.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<Vec<(Instant, u64)>>,
    started: Instant,
}

/// What came of a [`Flow`].
#[derive(Debug)]
pub struct Arrivals {
    /// Datagrams given to the kernel.
    pub sent: u64,
    /// When each datagram came, and its number.
    pub received: Vec<(Instant, u64)>,
    started: Instant,
    ended: Instant,
}

impl Flow {
    /// Sends a datagram every `interval` until [`Flow::finish`].
    ///
    /// # Errors
    /// A socket cannot be opened at a player's virtual address.
    pub fn start(from: &Player, to: &Player, interval: Duration) -> anyhow::Result<Self> {
        let source = open(from)?;
        let sink = open(to)?;
        let target = sink.local_addr().context("read the sink's port")?;
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let sender = thread::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || send(&source, target, interval, &stop, &sent)
        });
        let receiver = thread::spawn({
            let stop = Arc::clone(&stop);
            move || receive(&sink, &stop)
        });
        Ok(Self { stop, sent, sender, receiver, started: Instant::now() })
    }

    /// Stops sending and takes what still arrives within 200 ms.
    pub fn finish(self) -> Arrivals {
        let ended = Instant::now();
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().expect("the sender does not panic");
        let received = self.receiver.join().expect("the receiver does not panic");
        let sent = self.sent.load(Ordering::Relaxed);
        Arrivals { sent, received, started: self.started, ended }
    }
}

impl Arrivals {
    /// The longest time without an arrival.
    pub fn longest_gap(&self) -> Duration {
        self.longest_gap_between(self.started, self.ended)
    }

    /// The longest time without an arrival between two moments, both ends included.
    pub fn longest_gap_between(&self, from: Instant, to: Instant) -> Duration {
        let inside = self.received.iter().map(|(at, _)| *at).filter(|at| (from..=to).contains(at));
        let mut last = from;
        let mut longest = Duration::ZERO;
        for at in inside.chain([to]) {
            longest = longest.max(at - last);
            last = at;
        }
        longest
    }

    /// Arrivals up to a moment.
    pub fn before(&self, moment: Instant) -> usize {
        self.received.len() - self.after(moment)
    }

    /// Arrivals after a moment.
    pub fn after(&self, moment: Instant) -> usize {
        self.received.iter().filter(|(at, _)| *at > moment).count()
    }
}

/// A flow each way between two players, to see what an event in the middle of it costs.
#[derive(Debug)]
pub struct BothWays {
    flows: Vec<Flow>,
}

impl BothWays {
    /// A datagram each way every 10 ms, for a second before this returns.
    ///
    /// # Errors
    /// A socket cannot be opened at a player's virtual address.
    pub fn start(one: &Player, other: &Player) -> anyhow::Result<Self> {
        Self::begin([(one, other), (other, one)])
    }

    /// [`BothWays::start`] between any two of `players`.
    ///
    /// # Errors
    /// A socket cannot be opened at a player's virtual address.
    pub fn among(players: &[Player]) -> anyhow::Result<Self> {
        let others = |at| players.iter().enumerate().filter(move |(other, _)| *other != at);
        let pairs = players.iter().enumerate();
        Self::begin(pairs.flat_map(|(at, one)| others(at).map(move |(_, other)| (one, other))))
    }

    fn begin<'a>(
        pairs: impl IntoIterator<Item = (&'a Player, &'a Player)>,
    ) -> anyhow::Result<Self> {
        const INTERVAL: Duration = Duration::from_millis(10);
        let flows = pairs.into_iter().map(|(from, to)| Flow::start(from, to, INTERVAL));
        let flows = flows.collect::<anyhow::Result<_>>()?;
        thread::sleep(Duration::from_secs(1));
        Ok(Self { flows })
    }

    /// Goes on for three seconds; then the longest time without an arrival on any way, from
    /// `event` on.
    ///
    /// # Errors
    /// On one way nothing arrived for half of the time before `event`.
    pub fn longest_gap_after(self, event: Instant) -> anyhow::Result<Duration> {
        const BEFORE: Duration = Duration::from_millis(900);
        thread::sleep(Duration::from_secs(3));
        let observed = Instant::now();
        let mut longest = Duration::ZERO;
        for flow in self.flows {
            let arrivals = flow.finish();
            let before = arrivals.longest_gap_between(event - BEFORE, event);
            ensure!(before < BEFORE / 2, "{before:?} without traffic before the event");
            longest = longest.max(arrivals.longest_gap_between(event, observed));
        }
        Ok(longest)
    }
}

fn open(player: &Player) -> anyhow::Result<UdpSocket> {
    let address = player.address();
    let socket = player.host().enter(|| UdpSocket::bind((address, 0)))?;
    let socket = socket.with_context(|| format!("bind {address} at {}", player.name()))?;
    socket.set_read_timeout(Some(RECEIVE_PATIENCE)).context("set a read time-out")?;
    Ok(socket)
}

fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    interval: Duration,
    stop: &AtomicBool,
    sent: &AtomicU64,
) {
    let mut datagram = [0; DATAGRAM_LEN];
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let number = sent.load(Ordering::Relaxed);
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        // The NIC may be full or the member not yet resolved: a lost datagram is what is measured.
        if socket.send_to(&datagram, to).is_ok() {
            sent.store(number + 1, Ordering::Relaxed);
        }
        next += interval;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Vec<(Instant, u64)> {
    let mut received = Vec::new();
    let mut datagram = [0; DATAGRAM_LEN];
    let mut stopped_at: Option<Instant> = None;
    loop {
        match socket.recv(&mut datagram) {
            Ok(_) => {
                let number = u64::from_be_bytes(*datagram.first_chunk().expect("8 of 120 bytes"));
                received.push((Instant::now(), number));
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => thread::sleep(RECEIVE_PATIENCE),
        }
        if stop.load(Ordering::Relaxed) {
            let since = stopped_at.get_or_insert_with(Instant::now).elapsed();
            if since > Duration::from_millis(200) {
                return received;
            }
        }
    }
}
