//! Joins the datagrams of a batch that go to one destination to trains: from two on that costs less
//! than sending them one by one (docs/src/decisions/joined-datagrams.md).

use crate::counters::Counters;
use crate::gso::{Gso, MAX_SEGMENTS};
use crate::outgoing::{MAX_PAYLOAD_V4, Message, Part};

/// Destinations remembered. One slot a hash: with a collision the older is forgotten, and what comes
/// for it later begins a train of its own.
const SLOTS: usize = 256;

/// The last message to each destination since the last submission: what comes next for it may follow
/// in the same train. Only ever the last, so the order to a destination is kept.
#[derive(Debug)]
pub(crate) struct Joiner {
    recent: Box<[Recent; SLOTS]>,
    /// Slots with another stamp are empty.
    stamp: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Recent {
    stamp: u32,
    /// Of the chain.
    first: u32,
    last: u32,
    len: u32,
    segments: u16,
    /// The last datagram is as long as the first: more may follow.
    is_open: bool,
}

impl Joiner {
    pub(crate) fn new() -> Self {
        Self { recent: Box::new([Recent::default(); SLOTS]), stamp: 1 }
    }

    /// The messages so far are about to be submitted, and are not to be changed.
    pub(crate) fn close(&mut self) {
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.recent.fill(Recent::default());
            self.stamp = 1;
        }
    }

    /// Takes note of the last of `messages`, and appends it to the train before if it can be.
    pub(crate) fn add(&mut self, messages: &mut [Message], gso: &Gso, counters: &Counters) {
        let Some((message, before)) = messages.split_last_mut() else { return };
        let recent = &mut self.recent[slot(message)];
        if recent.stamp == self.stamp && recent.takes(message, before, gso) {
            recent.append(message, before, counters);
        } else {
            *recent = Recent::begin(self.stamp, message, before.len());
        }
    }

    /// Takes note of a chain that nothing may follow, whose first message is `messages[first]`.
    pub(crate) fn add_closed(&mut self, messages: &[Message], first: usize) {
        let message = &messages[first];
        let recent = Recent::begin(self.stamp, message, first);
        self.recent[slot(message)] = Recent { is_open: false, ..recent };
    }
}

impl Recent {
    fn begin(stamp: u32, message: &Message, index: usize) -> Self {
        let Message { len, segments, .. } = *message;
        let is_open = len > 0 && len == u32::from(segments) * message.datagram_len();
        let index = index as u32;
        Self { stamp, first: index, last: index, len, segments, is_open }
    }

    fn takes(&self, message: &Message, before: &[Message], gso: &Gso) -> bool {
        let first = &before[self.first as usize];
        let size = first.datagram_len();
        let fits = match message.segment_size {
            0 => (1..=size).contains(&message.len),
            segment_size => u32::from(segment_size) == size,
        };
        fits && self.is_open
            && usize::from(self.segments + message.segments) <= MAX_SEGMENTS
            && (self.len + message.len) as usize <= MAX_PAYLOAD_V4
            && first.socket == message.socket
            && first.to == message.to
            && gso.allows(message.socket, &message.to)
    }

    fn append(&mut self, message: &mut Message, before: &mut [Message], counters: &Counters) {
        let size = before[self.first as usize].datagram_len();
        let index = before.len() as u32;
        before[self.last as usize].next = index;
        message.part = Part::Later;
        counters.tx_joined.add(message.segments.into());
        let first = &mut before[self.first as usize];
        if first.part == Part::Alone {
            first.part = Part::Joined;
            counters.tx_joined.add(first.segments.into());
        }
        self.last = index;
        self.len += message.len;
        self.segments += message.segments;
        self.is_open = self.len == u32::from(self.segments) * size;
    }
}

fn slot(message: &Message) -> usize {
    (message.to.hash() >> 24) as usize % SLOTS
}
