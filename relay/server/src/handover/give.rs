use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lanrage_relay_core::Binder;
use lanrage_relay_core::binder::binder_words;
use lanrage_relay_table::Capacity;
use lanrage_relay_uring::SharedMemory;

use super::carried::{FrozenBinder, Halted, ShardState, to_memfd};
use super::channel::{Channel, DESCRIPTORS_MAX};
use super::message::{Message, Offer, VERSION};
use crate::clock::Clock;

/// The new process reads its configuration and tries its back end; the relay serves meanwhile.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// It reads the whole table, 0.3 s for a million leases; the relay forwards but does not bind.
const ADOPT_PATIENCE: Duration = Duration::from_secs(5);
/// Nobody receives meanwhile.
const ARM_PATIENCE: Duration = Duration::from_secs(2);

/// Why the relay stays with this process.
#[derive(Debug, thiserror::Error)]
pub enum GiveError {
    /// By the new process.
    #[error("the new process refuses: {0}")]
    Refused(String),
    /// In some step.
    #[error("the new process {step}: {source}; see what it logged")]
    Lost {
        /// What it was to do.
        step: &'static str,
        /// It ended, or took too long.
        source: io::Error,
    },
    /// This process's threads.
    #[error("{0} did not stop in time: see /readyz")]
    Busy(&'static str),
    /// What the kernel refused here.
    #[error("handing over: {0}")]
    Io(#[from] io::Error),
}

/// What a relay has that outlives its process.
#[derive(Debug)]
pub struct Estate {
    /// As configured.
    pub listen: Vec<SocketAddr>,
    /// Of data.
    pub shards: usize,
    /// How datagrams reach them, as the metric `lanrage_relay_steering` says.
    pub steering: String,
    /// By shard, in the order of `listen`; those for control frames last, where steering has them.
    pub sockets: Vec<Vec<OwnedFd>>,
    /// Of the table.
    pub capacity: Capacity,
    /// Of table and binder.
    pub memory: Memory,
    /// The open file that the state directory's lock is on.
    pub lock: OwnedFd,
    /// By name: `metrics`, `admin`, `stream-0`...
    pub listeners: Vec<(String, OwnedFd)>,
    /// CLOCK_MONOTONIC at the relay's start, in nanoseconds.
    pub clock_origin_ns: u64,
}

/// What leases are kept in.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Of [`Capacity::words`].
    pub table: Arc<SharedMemory>,
    /// Of [`binder_words`].
    pub binder: Arc<SharedMemory>,
}

impl Memory {
    /// Fresh memory.
    ///
    /// # Errors
    /// There is not as much.
    pub fn new(capacity: Capacity) -> io::Result<Self> {
        let table = SharedMemory::create("lanrage-table", capacity.words())?;
        let binder = SharedMemory::create("lanrage-binder", binder_words(capacity))?;
        Ok(Self { table: Arc::new(table), binder: Arc::new(binder) })
    }

    /// That of another process.
    pub(super) fn open(table: OwnedFd, binder: OwnedFd) -> io::Result<Self> {
        let (table, binder) = (SharedMemory::open(table)?, SharedMemory::open(binder)?);
        Ok(Self { table: Arc::new(table), binder: Arc::new(binder) })
    }
}

impl Estate {
    /// CLOCK_MONOTONIC as [`Estate::clock_origin_ns`] wants it.
    pub fn clock_now_ns() -> u64 {
        Clock::start().origin_ns()
    }
}

/// What has to stop before another process can go on, and may have to go on itself.
pub trait Halt {
    /// Ends all edits of table and binder, and says what the next binder must know.
    ///
    /// # Errors
    /// It does not stop.
    fn freeze(&mut self) -> Result<FrozenBinder, GiveError>;

    /// Ends all receiving, after everything received is sent or waits for the binder.
    ///
    /// # Errors
    /// It does not stop.
    fn halt(&mut self, deadline: Instant) -> Result<Halted, GiveError>;

    /// Goes on as if nothing had happened; `halted` is what [`Halt::halt`] gave. **The new process is
    /// dead by then.**
    fn resume(&mut self, halted: Option<Halted>);
}

/// A relay without threads: leases that were made by [`Binder::give_lease`], and sockets that nobody
/// has received from.
#[derive(Debug)]
pub struct Idle {
    /// Over the estate's memory.
    pub binder: Binder,
    /// As many as the estate has sets of sockets.
    pub shards: usize,
}

impl Halt for Idle {
    fn freeze(&mut self) -> Result<FrozenBinder, GiveError> {
        Ok(FrozenBinder { core: self.binder.freeze(), ..FrozenBinder::default() })
    }

    fn halt(&mut self, _: Instant) -> Result<Halted, GiveError> {
        let shards = vec![ShardState::default(); self.shards];
        Ok(Halted { shards, ..Halted::default() })
    }

    fn resume(&mut self, _: Option<Halted>) {}
}

/// Hands a relay over to the process at the other end. `kill` ends that process and returns when it
/// is dead. On success this process must not touch memory or sockets any more; it only has to
/// end.
///
/// # Errors
/// The relay stays with this process, and has gone on.
pub fn give(
    channel: &Channel,
    estate: &Estate,
    relay: &mut impl Halt,
    kill: impl FnOnce(),
) -> Result<(), GiveError> {
    let mut halted = None;
    let given = steps(channel, estate, relay, &mut halted);
    if given.is_err() {
        kill();
        relay.resume(halted);
    }
    given
}

fn steps(
    channel: &Channel,
    estate: &Estate,
    relay: &mut impl Halt,
    halted: &mut Option<Halted>,
) -> Result<(), GiveError> {
    offer(channel, estate)?;
    expect(channel, &Message::Ready, "did not get ready", READY_PATIENCE)?;

    let frozen = to_memfd(&relay.freeze()?.pack())?;
    send(channel, &Message::Frozen, &[frozen.as_fd()])?;
    expect(channel, &Message::Adopted, "did not take the table over", ADOPT_PATIENCE)?;

    let deadline = Instant::now() + ARM_PATIENCE;
    let left = to_memfd(&halted.insert(relay.halt(deadline)?).pack())?;
    send(channel, &Message::Go, &[left.as_fd()])?;
    let patience = deadline.saturating_duration_since(Instant::now());
    let patience = patience.max(Duration::from_millis(1));
    expect(channel, &Message::Armed, "did not begin to receive", patience)?;

    // From here on the relay is the other's: whatever becomes of this message, that process may have
    // read it.
    channel.send(&Message::Yours, &[]).map_err(|source| lost("ended at the last moment", source))
}

fn offer(channel: &Channel, estate: &Estate) -> Result<(), GiveError> {
    let offer = Offer {
        version: VERSION,
        listen: estate.listen.clone(),
        shards: estate.shards,
        steering: estate.steering.clone(),
        sets: estate.sockets.len(),
        leases: estate.capacity.leases,
        listeners: estate.listeners.iter().map(|(name, _)| name.clone()).collect(),
        clock_origin_ns: estate.clock_origin_ns,
    };
    let Memory { table, binder } = &estate.memory;
    let mut with = vec![table.as_fd(), binder.as_fd(), estate.lock.as_fd()];
    with.extend(estate.listeners.iter().map(|(_, listener)| listener.as_fd()));
    send(channel, &Message::Offer(offer), &with)?;
    let sockets: Vec<BorrowedFd<'_>> =
        estate.sockets.iter().flatten().map(|socket| socket.as_fd()).collect();
    sockets
        .chunks(DESCRIPTORS_MAX)
        .try_for_each(|sockets| send(channel, &Message::Sockets, sockets))
}

fn send(channel: &Channel, message: &Message, with: &[BorrowedFd<'_>]) -> Result<(), GiveError> {
    let Err(source) = channel.send(message, with) else { return Ok(()) };
    // It may have said why before it went.
    match channel.receive(Duration::from_millis(1)) {
        Ok((Message::Refused(why), _)) => Err(GiveError::Refused(why)),
        _ => Err(lost("is gone", source)),
    }
}

fn expect(
    channel: &Channel,
    expected: &Message,
    step: &'static str,
    patience: Duration,
) -> Result<(), GiveError> {
    let (said, _) = channel.receive(patience).map_err(|source| lost(step, source))?;
    if let Message::Refused(why) = said {
        return Err(GiveError::Refused(why));
    }
    match said == *expected {
        true => Ok(()),
        false => Err(lost(step, io::Error::other(format!("it said {said:?}")))),
    }
}

const fn lost(step: &'static str, source: io::Error) -> GiveError {
    GiveError::Lost { step, source }
}
