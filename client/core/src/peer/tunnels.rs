use std::time::{Duration, Instant};

use lanrage_proto::Epoch;

use crate::tunnel::{Refused, Tunnel};

/// How long the tunnel of the epoch before is kept, and used while the new one has no session.
pub(crate) const OLD_TUNNEL_LIFETIME: Duration = Duration::from_secs(10);
/// Between calls of [`Tunnel::tick`].
const TICK: Duration = Duration::from_secs(1);

/// A tunnel, and what its datagrams are known by.
pub(crate) struct Slot {
    pub(crate) tunnel: Box<dyn Tunnel>,
    pub(crate) index: u32,
    pub(crate) epoch: Epoch,
}

/// The tunnel of the epoch, and for a while the last one before that had a session.
pub(crate) struct Tunnels {
    pub(crate) current: Slot,
    old: Option<(Slot, Instant)>,
    next_tick: Option<Instant>,
}

impl Tunnels {
    pub(super) const fn new(current: Slot) -> Self {
        Self { current, old: None, next_tick: None }
    }

    pub(super) fn replace(&mut self, slot: Slot, now: Instant) {
        let replaced = std::mem::replace(&mut self.current, slot);
        // Two epochs in quick succession: the one before last has the only session there is.
        let old = match self.old.take() {
            Some((old, _)) if is_up(&*old.tunnel) && !is_up(&*replaced.tunnel) => old,
            _ => replaced,
        };
        self.old = Some((old, now + OLD_TUNNEL_LIFETIME));
        self.wake(now);
    }

    /// The tunnel's timers run while it is in use.
    pub(crate) fn wake(&mut self, now: Instant) {
        self.next_tick.get_or_insert(now + TICK);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let old = self.old.as_ref().map(|(_, until)| *until);
        self.next_tick.into_iter().chain(old).min()
    }

    /// Whether packets can be sealed.
    pub(crate) fn has_session(&self) -> bool {
        self.is_current_up() || self.old().is_some_and(|old| is_up(&*old.tunnel))
    }

    pub(crate) fn is_current_up(&self) -> bool {
        is_up(&*self.current.tunnel)
    }

    pub(crate) fn old(&self) -> Option<&Slot> {
        self.old.as_ref().map(|(slot, _)| slot)
    }

    /// Seals in the current epoch, or in the one before while only that has a session.
    pub(crate) fn encapsulate(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, Refused> {
        match (self.current.tunnel.encapsulate(packet, out), &mut self.old) {
            (Err(Refused::NoSession), Some((old, _))) => old.tunnel.encapsulate(packet, out),
            (result, _) => result,
        }
    }

    /// The tunnel that a receiver index names.
    pub(crate) fn by_index(&mut self, index: u32) -> Option<&mut Slot> {
        if self.current.index == index {
            return Some(&mut self.current);
        }
        self.old.as_mut().map(|(slot, _)| slot).filter(|slot| slot.index == index)
    }

    /// The tunnel that takes and makes handshakes: the old one as long as the peer is not known to
    /// be in the new epoch.
    pub(crate) fn for_handshake(&mut self, peer_is_behind: bool) -> &mut Slot {
        match &mut self.old {
            Some((old, _)) if peer_is_behind => old,
            _ => &mut self.current,
        }
    }

    /// Drops the old tunnel when its time is over; gives a datagram of the current one's timers.
    pub(crate) fn handle_timeout(&mut self, out: &mut [u8], now: Instant) -> Option<usize> {
        if self.old.as_ref().is_some_and(|(_, until)| now >= *until) {
            self.old = None;
        }
        if self.next_tick.is_none_or(|at| now < at) {
            return None;
        }
        let due = self.current.tunnel.tick(out);
        let in_use = due.is_some() || self.is_current_up();
        self.next_tick = in_use.then_some(now + TICK);
        due
    }
}

fn is_up(tunnel: &dyn Tunnel) -> bool {
    tunnel.time_since_handshake().is_some()
}
