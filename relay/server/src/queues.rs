//! From the shards to the binder: bounded, allocated at start, never waited on.

use std::net::SocketAddr;

use crossbeam::queue::ArrayQueue;
use lanrage_relay_core::Class;
use lanrage_relay_core::shard::BINDER_DATAGRAM_LEN_MAX;
use lanrage_relay_table::{Handle, LocalId};

const ACTIVATIONS: usize = 4096;
/// A tenth of a second of RESUMEs.
const ESTABLISHED: usize = 8192;
const HELLOS: usize = 8192;
/// A fifth of a second of handshakes: who waits longer asks again.
const BINDS: usize = 512;

/// What a round takes of each class. In time, when all floods at once: 32 × 9 µs, 32 × 3 µs and one
/// handshake of 300 µs, so that none starves another and none waits long.
const ESTABLISHED_PER_ROUND: usize = 32;
const HELLOS_PER_ROUND: usize = 32;
const BINDS_PER_ROUND: usize = 1;

/// A datagram for the binder.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) source: SocketAddr,
    pub(crate) local: LocalId,
    len: usize,
    bytes: [u8; BINDER_DATAGRAM_LEN_MAX],
}

impl Item {
    /// `None` if the datagram is longer than any the binder takes.
    pub(crate) fn new(datagram: &[u8], source: SocketAddr, local: LocalId) -> Option<Self> {
        let mut bytes = [0; BINDER_DATAGRAM_LEN_MAX];
        bytes.get_mut(..datagram.len())?.copy_from_slice(datagram);
        Some(Self { source, local, len: datagram.len(), bytes })
    }

    pub(crate) fn datagram(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// One queue a class, so that a flood of one fills no other.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) activations: ArrayQueue<Handle>,
    established: ArrayQueue<Item>,
    hellos: ArrayQueue<Item>,
    binds: ArrayQueue<Item>,
}

impl Queues {
    pub(crate) fn new() -> Self {
        Self {
            activations: ArrayQueue::new(ACTIVATIONS),
            established: ArrayQueue::new(ESTABLISHED),
            hellos: ArrayQueue::new(HELLOS),
            binds: ArrayQueue::new(BINDS),
        }
    }

    pub(crate) const fn of(&self, class: Class) -> &ArrayQueue<Item> {
        match class {
            Class::Established => &self.established,
            Class::Hello => &self.hellos,
            Class::Bind => &self.binds,
        }
    }

    /// The datagrams to handle next, each taken from its queue when it is asked for.
    pub(crate) fn round(&self) -> impl Iterator<Item = Item> {
        take(&self.established, ESTABLISHED_PER_ROUND)
            .chain(take(&self.hellos, HELLOS_PER_ROUND))
            .chain(take(&self.binds, BINDS_PER_ROUND))
    }
}

fn take(queue: &ArrayQueue<Item>, most: usize) -> impl Iterator<Item = Item> {
    (0..most).map_while(|_| queue.pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(class: Class) -> Item {
        let local = LocalId(0);
        Item::new(&[class as u8], SocketAddr::from(([192, 0, 2, 1], 1)), local).unwrap()
    }

    fn flood(queues: &Queues, class: Class) {
        while queues.of(class).push(item(class)).is_ok() {}
    }

    fn taken(queues: &Queues, class: Class) -> usize {
        queues.round().filter(|item| item.datagram() == [class as u8]).count()
    }

    #[test]
    fn floods_of_others_delay_no_class() {
        const CLASSES: [Class; 3] = [Class::Established, Class::Hello, Class::Bind];
        for quiet in CLASSES {
            let queues = Queues::new();
            for _ in 0..100 {
                CLASSES
                    .iter()
                    .filter(|class| **class != quiet)
                    .for_each(|class| flood(&queues, *class));
                assert!(queues.of(quiet).push(item(quiet)).is_ok(), "a flood fills its own queue");
                assert_eq!(taken(&queues, quiet), 1, "in the next round");
            }
        }
    }

    #[test]
    fn a_round_ends_under_every_flood() {
        let queues = Queues::new();
        let most = ESTABLISHED_PER_ROUND + HELLOS_PER_ROUND + BINDS_PER_ROUND;
        for class in [Class::Established, Class::Hello, Class::Bind] {
            flood(&queues, class);
        }
        assert_eq!(queues.round().count(), most);
    }
}
