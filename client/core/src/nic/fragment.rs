//! Packets larger than one datagram are split inside the encryption and joined by the receiver
//! (§9.5): hosts see a plain 1,500-byte LAN.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use lanrage_proto::inner::FRAGMENT_OVERHEAD;

use super::{INNER_MTU_MIN, NIC_MTU};

/// A piece that comes later than this after the first is of no use to a game.
const LIFETIME: Duration = Duration::from_secs(2);
/// Memory a member may hold here.
const BYTES_MAX: usize = 1 << 20;
/// Pieces a NIC packet has at most.
const PIECES_MAX: usize = NIC_MTU.div_ceil(INNER_MTU_MIN - FRAGMENT_OVERHEAD);
/// Counted for a packet beside its pieces.
const PACKET_COST: usize = 128;

/// The pieces of a packet, all but the last of the same length.
pub(crate) fn split(packet: &[u8], inner_mtu: usize) -> impl ExactSizeIterator<Item = &[u8]> {
    packet.chunks(inner_mtu - FRAGMENT_OVERHEAD)
}

#[derive(Debug)]
struct Partial {
    id: u16,
    first_at: Instant,
    pieces: Vec<Option<Vec<u8>>>,
}

impl Partial {
    fn cost(&self) -> usize {
        PACKET_COST + self.pieces.iter().flatten().map(Vec::len).sum::<usize>()
    }
}

/// One member's packets that are not yet whole, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    partials: VecDeque<Partial>,
    cost: usize,
}

/// A piece that cannot be joined: its count or length is impossible, or others said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadPiece;

impl Reassembly {
    /// Takes a piece; gives the packet when it was the last one missing.
    pub(crate) fn handle(
        &mut self,
        id: u16,
        (index, count): (u8, u8),
        piece: &[u8],
        now: Instant,
    ) -> Result<Option<Vec<u8>>, BadPiece> {
        let (index, count) = (usize::from(index), usize::from(count));
        if index >= count || count > PIECES_MAX || piece.is_empty() || piece.len() > NIC_MTU {
            return Err(BadPiece);
        }
        self.expire(now);
        let at = match self.partials.iter().position(|partial| partial.id == id) {
            Some(at) if self.partials[at].pieces.len() == count => at,
            Some(_) => return Err(BadPiece),
            None => {
                let pieces = vec![None; count];
                self.partials.push_back(Partial { id, first_at: now, pieces });
                self.cost += PACKET_COST;
                self.partials.len() - 1
            }
        };
        let slot = &mut self.partials[at].pieces[index];
        if slot.is_none() {
            *slot = Some(piece.to_vec());
            self.cost += piece.len();
        }
        if self.partials[at].pieces.iter().all(Option::is_some) {
            let whole =
                self.remove(at).into_iter().flatten().flatten().collect::<Vec<_>>().concat();
            return if whole.len() <= NIC_MTU { Ok(Some(whole)) } else { Err(BadPiece) };
        }
        while self.cost > BYTES_MAX {
            self.remove(0);
        }
        Ok(None)
    }

    fn expire(&mut self, now: Instant) {
        while self.partials.front().is_some_and(|first| now > first.first_at + LIFETIME) {
            self.remove(0);
        }
    }

    fn remove(&mut self, at: usize) -> Option<Vec<Option<Vec<u8>>>> {
        let partial = self.partials.remove(at)?;
        self.cost -= partial.cost();
        Some(partial.pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_in_any_order_and_once() {
        let now = Instant::now();
        let packet: Vec<u8> = (0..NIC_MTU).map(|at| at as u8).collect();
        let pieces: Vec<_> = split(&packet, INNER_MTU_MIN).collect();
        assert_eq!(pieces.len(), 2);
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.handle(7, (1, 2), pieces[1], now), Ok(None));
        assert_eq!(reassembly.handle(7, (1, 2), pieces[1], now), Ok(None));
        assert_eq!(reassembly.handle(7, (0, 2), pieces[0], now), Ok(Some(packet.clone())));
        assert_eq!(reassembly.cost, 0);
        assert_eq!(reassembly.handle(8, (0, 2), pieces[0], now), Ok(None));
        let late = now + LIFETIME + Duration::from_millis(1);
        assert_eq!(reassembly.handle(8, (1, 2), pieces[1], late), Ok(None));
    }

    #[test]
    fn memory_stays_bounded_and_impossible_pieces_are_refused() {
        let now = Instant::now();
        let mut reassembly = Reassembly::default();
        for id in 0..=u16::MAX {
            reassembly.handle(id, (0, 2), &[0; 1400], now).unwrap();
            assert!(reassembly.cost <= BYTES_MAX + NIC_MTU + PACKET_COST);
        }
        let last = u16::MAX;
        assert_eq!(reassembly.handle(last, (0, 1), &[0; 9], now), Err(BadPiece));
        assert_eq!(reassembly.handle(last, (1, 2), &[0; 1400], now), Err(BadPiece));
        assert_eq!(reassembly.handle(1, (0, 200), &[0; 9], now), Err(BadPiece));
    }
}
