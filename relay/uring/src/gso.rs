//! When a train may go out whole (UDP_SEGMENT), and when its segments go one by one.

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
    /// Use it, and turn it off for a socket whose device cannot do it.
    Auto,
    /// Use it, whatever failed before on the socket.
    On,
    /// Send every datagram by itself.
    Off,
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
        self.0.store(mode as u8, Ordering::Relaxed);
    }

    /// Reads the switch.
    pub fn mode(&self) -> GsoMode {
        match self.0.load(Ordering::Relaxed) {
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
        let works = match (self.switch.mode(), self.sockets[socket.index()]) {
            (GsoMode::Off, _) | (_, SocketState::Unsupported) => false,
            (GsoMode::Auto, state) => state == SocketState::Works,
            (GsoMode::On, _) => true,
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
