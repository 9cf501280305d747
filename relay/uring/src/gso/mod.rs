//! When a train may go out whole (UDP_SEGMENT), and when its segments go one by one.

mod kernels;
pub use kernels::{KNOWN_BUGS, KnownBug, Release};
pub mod self_test;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::address::RawAddress;
use crate::counters::Counters;
use crate::sockets::SocketId;

/// Most segments of a train: UDP_MAX_SEGMENTS of kernels before 6.9 (linux/udp.h), and what a GRO
/// train holds at most (UDP_GRO_CNT_MAX).
pub(crate) const MAX_SEGMENTS: usize = 64;

/// How long a destination that refused a train is sent single datagrams.
const BAR_TIMEOUT: Duration = Duration::from_secs(600);

/// Barred destinations remembered. One slot a hash: a collision forgets the older, whose next train
/// fails once and is sent again.
const BAR_SLOTS: usize = 64;

/// Whether to use segmentation offload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum GsoMode {
    /// Use it unless the kernel is not to be trusted with it ([`GsoVerdict`]), and turn it off for a
    /// socket whose device cannot do it.
    Auto,
    /// Use it, whatever was found, and whatever failed before on the socket.
    On,
    /// Send every datagram by itself.
    Off,
}

/// Set in a switch beside the mode.
const DISTRUSTED: u8 = 0x80;

/// What is known of this kernel's segmentation offload when the relay starts.
#[derive(Debug)]
pub enum GsoVerdict {
    /// Trains arrive as they are sent.
    Trusted,
    /// It is known for a bug.
    KnownBug(Release, &'static KnownBug),
    /// A train did not arrive as it was sent.
    SelfTest(self_test::Fault),
}

impl GsoVerdict {
    /// Looks this kernel up among the known bad ones, and sends trains over loopback.
    pub fn find() -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let release = Release::parse(&release);
        if let Some((release, bug)) = release.and_then(|known| Some((known, known.known_bug()?))) {
            return Self::KnownBug(release, bug);
        }
        match self_test::over_loopback() {
            Ok(()) => Self::Trusted,
            Err(fault) => Self::SelfTest(fault),
        }
    }

    /// Whether [`GsoMode::Auto`] uses segmentation offload.
    pub fn is_trusted(&self) -> bool {
        matches!(self, Self::Trusted)
    }

    /// The metric label.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::KnownBug(..) => "known_bug",
            Self::SelfTest(_) => "self_test",
        }
    }
}

/// The reason, and what to do.
impl fmt::Display for GsoVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trusted => f.write_str("trains arrive as they are sent"),
            Self::KnownBug(release, bug) => write!(
                f,
                "on Linux {release} {}: update to {}, or set gso to `on` if this kernel has the fix ({})",
                bug.effect, bug.fixed, bug.source
            ),
            Self::SelfTest(fault) => write!(f, "{fault}: update the kernel"),
        }
    }
}

/// The operator's switch, shared by all shards; takes effect with the next train.
#[derive(Debug, Clone)]
pub struct GsoSwitch(Arc<AtomicU8>);

impl GsoSwitch {
    /// A switch set to `mode`.
    pub fn new(mode: GsoMode) -> Self {
        Self(Arc::new(AtomicU8::new(mode as u8)))
    }

    /// Sets the switch.
    pub fn set(&self, mode: GsoMode) {
        let verdict = self.0.load(Ordering::Relaxed) & DISTRUSTED;
        self.0.store(mode as u8 | verdict, Ordering::Relaxed);
    }

    /// Says what was found of this kernel. To be called before shards run.
    pub fn judge(&self, verdict: &GsoVerdict) {
        let mode = self.0.load(Ordering::Relaxed) & !DISTRUSTED;
        let verdict = if verdict.is_trusted() { 0 } else { DISTRUSTED };
        self.0.store(mode | verdict, Ordering::Relaxed);
    }

    /// Whether a train may go out whole where nothing speaks against it.
    fn is_on(&self) -> bool {
        let state = self.0.load(Ordering::Relaxed);
        state == GsoMode::Auto as u8 || state & !DISTRUSTED == GsoMode::On as u8
    }

    /// Reads the switch.
    pub fn mode(&self) -> GsoMode {
        match self.0.load(Ordering::Relaxed) & !DISTRUSTED {
            mode if mode == GsoMode::Auto as u8 => GsoMode::Auto,
            mode if mode == GsoMode::On as u8 => GsoMode::On,
            _ => GsoMode::Off,
        }
    }
}

impl Default for GsoSwitch {
    fn default() -> Self {
        Self::new(GsoMode::Auto)
    }
}

/// One shard's knowledge of where segmentation offload works.
#[derive(Debug)]
pub(crate) struct Gso {
    switch: GsoSwitch,
    sockets: Box<[SocketState]>,
    bars: Box<[Option<Bar>; BAR_SLOTS]>,
    /// No bar is set: the common case needs neither the table nor the clock.
    unbarred: bool,
    now: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SocketState {
    Works,
    Failed,
    Unsupported,
}

#[derive(Debug, Clone, Copy)]
struct Bar {
    destination: RawAddress,
    until: Instant,
}

impl Gso {
    pub(crate) fn new(switch: GsoSwitch, supported: impl Iterator<Item = bool>) -> Self {
        let state =
            |supported| if supported { SocketState::Works } else { SocketState::Unsupported };
        Self {
            switch,
            sockets: supported.map(state).collect(),
            bars: Box::new([None; BAR_SLOTS]),
            unbarred: true,
            now: Instant::now(),
        }
    }

    /// Reads the clock if a bar could expire.
    pub(crate) fn begin_turn(&mut self) {
        if !self.unbarred {
            self.now = Instant::now();
            for bar in self.bars.iter_mut() {
                *bar = bar.take_if(|bar| bar.until > self.now);
            }
            self.unbarred = self.bars.iter().all(Option::is_none);
        }
    }

    pub(crate) fn allows(&self, socket: SocketId, destination: &RawAddress) -> bool {
        let works = match self.sockets[socket.index()] {
            SocketState::Works => self.switch.is_on(),
            SocketState::Failed => self.switch.mode() == GsoMode::On,
            SocketState::Unsupported => false,
        };
        works && (self.unbarred || !self.is_barred(destination))
    }

    fn is_barred(&self, destination: &RawAddress) -> bool {
        self.bars[slot(destination)].is_some_and(|bar| bar.destination == *destination)
    }

    /// Learns from a train the kernel refused. `true` if its segments should be sent one by one.
    ///
    /// EIO: the device cannot checksum segments, or the route goes through IPsec: the socket's
    /// matter. EMSGSIZE, and EINVAL until 6.13: a segment is larger than this route's MTU: the
    /// destination's matter, and a remote peer can cause it, so it must not touch others
    /// (net/ipv4/udp.c, `udp_send_skb`).
    pub(crate) fn learn(
        &mut self,
        socket: SocketId,
        destination: &RawAddress,
        errno: i32,
        counters: &Counters,
    ) -> bool {
        match errno {
            libc::EIO => {
                let state = &mut self.sockets[socket.index()];
                if *state == SocketState::Works {
                    *state = SocketState::Failed;
                    counters.gso_disabled_sockets.add(1);
                }
                true
            }
            libc::EMSGSIZE | libc::EINVAL => {
                if !self.is_barred(destination) {
                    let until = Instant::now() + BAR_TIMEOUT;
                    self.bars[slot(destination)] = Some(Bar { destination: *destination, until });
                    self.unbarred = false;
                    counters.gso_barred_destinations.add(1);
                }
                true
            }
            _ => false,
        }
    }
}

fn slot(destination: &RawAddress) -> usize {
    (destination.hash() >> 16) as usize % BAR_SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> RawAddress {
        RawAddress::new(([192, 0, 2, last], 51820).into())
    }

    fn gso(mode: GsoMode) -> (Gso, GsoSwitch) {
        let switch = GsoSwitch::new(mode);
        (Gso::new(switch.clone(), [true, true, false].into_iter()), switch)
    }

    #[test]
    fn the_switch_acts_at_once() {
        let (gso, switch) = gso(GsoMode::Off);
        assert!(!gso.allows(SocketId(0), &address(1)));
        switch.set(GsoMode::Auto);
        assert!(gso.allows(SocketId(0), &address(1)));
        assert!(!gso.allows(SocketId(2), &address(1)), "the kernel lacks it for this socket");
        switch.set(GsoMode::On);
        assert!(!gso.allows(SocketId(2), &address(1)), "the kernel lacks it for this socket");
    }

    #[test]
    fn a_kernel_that_is_not_trusted_is_used_only_when_forced() {
        let (gso, switch) = gso(GsoMode::Auto);
        let allows = || gso.allows(SocketId(0), &address(1));
        let verdict = GsoVerdict::KnownBug(KNOWN_BUGS[0].since, &KNOWN_BUGS[0]);
        assert!(verdict.to_string().contains("7.1.5"));
        switch.judge(&verdict);
        assert!(!allows());
        for (mode, expected) in [(GsoMode::On, true), (GsoMode::Off, false), (GsoMode::Auto, false)]
        {
            switch.set(mode);
            assert_eq!((switch.mode(), allows()), (mode, expected));
        }
        switch.judge(&GsoVerdict::find());
        assert_eq!(allows(), GsoVerdict::find().is_trusted());
    }

    #[test]
    fn eio_turns_one_socket_off_until_forced_on() {
        let (mut gso, switch) = gso(GsoMode::Auto);
        let counters = Counters::default();
        for _ in 0..3 {
            assert!(gso.learn(SocketId(0), &address(1), libc::EIO, &counters));
        }
        assert_eq!(counters.gso_disabled_sockets.get(), 1);
        assert!(!gso.allows(SocketId(0), &address(2)));
        assert!(gso.allows(SocketId(1), &address(2)));
        switch.set(GsoMode::On);
        assert!(gso.allows(SocketId(0), &address(2)));
    }

    #[test]
    fn emsgsize_bars_one_destination_and_the_bar_expires() {
        let (mut gso, _) = gso(GsoMode::Auto);
        let counters = Counters::default();
        assert!(gso.learn(SocketId(0), &address(1), libc::EMSGSIZE, &counters));
        assert!(gso.learn(SocketId(0), &address(1), libc::EINVAL, &counters));
        assert_eq!(counters.gso_barred_destinations.get(), 1);
        assert!(!gso.allows(SocketId(1), &address(1)));
        assert!(gso.allows(SocketId(0), &address(2)));

        gso.begin_turn();
        assert!(!gso.allows(SocketId(0), &address(1)), "a bar lasts");
        for bar in gso.bars.iter_mut().flatten() {
            bar.until = gso.now;
        }
        gso.begin_turn();
        assert!(gso.allows(SocketId(0), &address(1)), "a bar ends");
        assert!(gso.unbarred);
    }

    #[test]
    fn other_errors_are_not_about_segmentation() {
        let (mut gso, _) = gso(GsoMode::Auto);
        for errno in [libc::EAGAIN, libc::EPERM, libc::ENETUNREACH] {
            assert!(!gso.learn(SocketId(0), &address(1), errno, &Counters::default()));
        }
        assert!(gso.allows(SocketId(0), &address(1)));
    }
}
