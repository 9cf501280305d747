//! From the shards to the binder: bounded, allocated at start, never waited on.

use std::net::SocketAddr;

use crossbeam::queue::ArrayQueue;
use lanrage_relay_core::Class;
use lanrage_relay_core::shard::BINDER_DATAGRAM_LEN_MAX;
use lanrage_relay_table::{Handle, LocalId};

const ACTIVATIONS: usize = 4096;
const ESTABLISHED: usize = 1024;
const NEWCOMERS: usize = 1024;

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
    pub(crate) established: ArrayQueue<Item>,
    pub(crate) newcomers: ArrayQueue<Item>,
}

impl Queues {
    pub(crate) fn new() -> Self {
        Self {
            activations: ArrayQueue::new(ACTIVATIONS),
            established: ArrayQueue::new(ESTABLISHED),
            newcomers: ArrayQueue::new(NEWCOMERS),
        }
    }

    pub(crate) fn of(&self, class: Class) -> &ArrayQueue<Item> {
        match class {
            Class::Established => &self.established,
            Class::Newcomer => &self.newcomers,
        }
    }
}
