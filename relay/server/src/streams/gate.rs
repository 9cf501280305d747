use std::cell::RefCell;
use std::hash::Hasher as _;
use std::net::IpAddr;
use std::rc::Rc;

use lanrage_relay_core::rate::{Meter, Rate};
use siphasher::sip::SipHasher13;

use super::{Refused, STREAMS_MAX, STREAMS_PER_PREFIX};

/// Prefixes that are told apart; two may share a slot.
const SLOTS: usize = 4096;
/// TLS handshakes, 0.2 ms each: at most a fifth of a core.
const HANDSHAKES: Rate = Rate::per_second(1_000, 500);
/// Those of one prefix.
const HANDSHAKES_PER_PREFIX: Rate = Rate::per_second(50, 2_000);

#[derive(Clone, Copy, Debug)]
struct Slot {
    open: u16,
    handshakes: Meter,
}

/// Who may open a stream. Its memory does not grow.
#[derive(Debug)]
pub(super) struct Gate {
    key: [u8; 16],
    open: usize,
    handshakes: Meter,
    slots: Box<[Slot]>,
}

/// A stream's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Rc<RefCell<Gate>>,
    slot: usize,
}

impl Gate {
    pub(super) fn new(key: [u8; 16]) -> Rc<RefCell<Self>> {
        let slot = Slot { open: 0, handshakes: Meter::new(HANDSHAKES_PER_PREFIX) };
        let handshakes = Meter::new(HANDSHAKES);
        Rc::new(RefCell::new(Self { key, open: 0, handshakes, slots: vec![slot; SLOTS].into() }))
    }

    pub(super) fn admit(
        gate: &Rc<RefCell<Self>>,
        peer: IpAddr,
        now_ms: u64,
    ) -> Result<Place, Refused> {
        let this = &mut *gate.borrow_mut();
        if this.open == STREAMS_MAX {
            return Err(Refused::Full);
        }
        let number = this.slot(peer);
        let slot = &mut this.slots[number];
        if slot.open == STREAMS_PER_PREFIX {
            return Err(Refused::PrefixFull);
        }
        // The prefix pays first: one that is too fast uses up nobody else's.
        if !slot.handshakes.take(now_ms) {
            return Err(Refused::PrefixRate);
        }
        if !this.handshakes.take(now_ms) {
            return Err(Refused::Rate);
        }
        slot.open += 1;
        this.open += 1;
        Ok(Place { gate: gate.clone(), slot: number })
    }

    fn slot(&self, peer: IpAddr) -> usize {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        match peer.to_canonical() {
            IpAddr::V4(ip) => hasher.write(&ip.octets()[..3]),
            IpAddr::V6(ip) => hasher.write(&ip.octets()[..7]),
        }
        hasher.finish() as usize % SLOTS
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut gate = self.gate.borrow_mut();
        gate.open -= 1;
        gate.slots[self.slot].open -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_cannot_take_every_place() {
        let gate = Gate::new([3; 16]);
        let from = |last: u8| IpAddr::from([192, 0, 2, last]);
        // Slowly, so that no rate stands in the way.
        let mut places: Vec<_> = (0..u64::from(STREAMS_PER_PREFIX))
            .map(|at| Gate::admit(&gate, from(at as u8), at * 100).unwrap())
            .collect();
        assert_eq!(Gate::admit(&gate, from(1), 60_000).unwrap_err(), Refused::PrefixFull);
        let other = Gate::admit(&gate, "2001:db8::1".parse().unwrap(), 60_000);
        assert!(other.is_ok());
        places.pop();
        assert!(Gate::admit(&gate, from(1), 60_000).is_ok(), "a place was given back");
        drop((places, other));
        assert_eq!(gate.borrow().open, 0);
        assert!(gate.borrow().slots.iter().all(|slot| slot.open == 0));
    }

    #[test]
    fn one_network_cannot_use_up_all_handshakes() {
        let gate = Gate::new([3; 16]);
        let flood = |at| Gate::admit(&gate, IpAddr::from([192, 0, 2, 1]), at).map(drop);
        let refused: Vec<_> = (0..1_000).filter_map(|_| flood(0).err()).collect();
        assert_eq!(refused.len(), 1_000 - 101);
        assert!(refused.iter().all(|reason| *reason == Refused::PrefixRate));
        assert!(Gate::admit(&gate, IpAddr::from([198, 51, 100, 1]), 0).is_ok());
        assert!(flood(20).is_ok(), "50 a second");
    }

    #[test]
    fn there_is_a_last_place() {
        let gate = Gate::new([3; 16]);
        let from = |at: usize| IpAddr::from([10, (at >> 8) as u8, at as u8, 1]);
        let places: Vec<_> = (0..STREAMS_MAX * 4)
            .map(|at| (at, Gate::admit(&gate, from(at), at as u64 * 100)))
            .take_while(|(_, place)| !matches!(place, Err(Refused::Full)))
            .collect();
        assert_eq!(gate.borrow().open, STREAMS_MAX);
        drop(places);
        assert_eq!(gate.borrow().open, 0);
    }
}
