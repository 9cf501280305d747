use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a member's handshake may hold up.
const PACKETS_MAX: usize = 64;
const BYTES_MAX: usize = 64 << 10;
/// Older packets are of no use.
const LIFETIME: Duration = Duration::from_secs(5);

/// Packets that wait for a session.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    packets: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl Queue {
    /// Gives the packet back when there is no room.
    pub(crate) fn push(&mut self, packet: Vec<u8>, now: Instant) -> Result<(), Vec<u8>> {
        if self.packets.len() == PACKETS_MAX || self.bytes + packet.len() > BYTES_MAX {
            return Err(packet);
        }
        self.bytes += packet.len();
        self.packets.push_back((now, packet));
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let (_, packet) = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.packets.front().map(|(at, _)| *at + LIFETIME)
    }

    /// The next packet whose time is over.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.deadline().filter(|deadline| now >= *deadline).and_then(|_| self.pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let taken = (0..1000).filter(|_| queue.push(vec![0; 40], now).is_ok()).count();
        assert_eq!(taken, PACKETS_MAX);
        let mut queue = Queue::default();
        let taken = (0..1000).filter(|_| queue.push(vec![0; 1500], now).is_ok()).count();
        assert_eq!(taken, BYTES_MAX / 1500);
        assert!(queue.pop_expired(now).is_none());
        assert!(queue.pop_expired(now + LIFETIME).is_some());
    }
}
