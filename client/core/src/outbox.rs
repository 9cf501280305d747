//! What a call has produced, until the program polls it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::counters::{Counters, DropReason};
use crate::event::{Event, Transmit};

/// A burst of the NIC's queue to every path stays below this.
const TRANSMITS_MAX: usize = 4096;
const NIC_PACKETS_MAX: usize = 4096;
/// Events are rare; a program that never polls them must not cost memory.
const EVENTS_MAX: usize = 1024;
/// Buffers kept for reuse.
const FREE_MAX: usize = 256;
/// Room for every datagram and packet that the client makes: a NIC packet, sealed, behind a header.
pub(crate) const BUFFER_LEN: usize = 2048;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    transmits: VecDeque<Transmit>,
    nic: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    free: Vec<Vec<u8>>,
    pub(crate) counters: Counters,
}

impl Outbox {
    /// A buffer of [`BUFFER_LEN`] bytes of any content.
    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        let mut buffer = self.free.pop().unwrap_or_default();
        buffer.resize(BUFFER_LEN, 0);
        buffer
    }

    /// A buffer that holds a copy of `bytes`.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.free.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        buffer
    }

    pub(crate) fn recycle(&mut self, buffer: Vec<u8>) {
        if self.free.len() < FREE_MAX && buffer.capacity() >= BUFFER_LEN {
            self.free.push(buffer);
        }
    }

    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.counters.drop(reason);
    }

    pub(crate) fn transmit(&mut self, to: SocketAddr, payload: Vec<u8>) {
        if self.transmits.len() == TRANSMITS_MAX {
            self.counters.drop(DropReason::TransmitQueueFull);
            self.recycle(payload);
            return;
        }
        self.counters.datagrams_sent += 1;
        self.transmits.push_back(Transmit { to, payload });
    }

    pub(crate) fn deliver(&mut self, packet: Vec<u8>) {
        if self.nic.len() == NIC_PACKETS_MAX {
            self.counters.drop(DropReason::NicQueueFull);
            self.recycle(packet);
            return;
        }
        self.counters.packets_to_nic += 1;
        self.nic.push_back(packet);
    }

    /// The oldest event gives way: every event only says "look again" or is repeated.
    pub(crate) fn event(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    pub(crate) fn poll_nic(&mut self) -> Option<Vec<u8>> {
        self.nic.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
