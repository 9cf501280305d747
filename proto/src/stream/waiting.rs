use std::collections::VecDeque;

use super::{FRAMED_LEN_MAX, LENGTH_LEN};

/// Datagrams that wait for a stream to take them, behind their lengths, in a bounded queue.
///
/// What finds no room puts out what has waited longest: to a game the newest state is worth most,
/// and TCP inside the tunnels learns of the loss soonest.
#[derive(Debug)]
pub struct Waiting {
    bytes: VecDeque<u8>,
    limit: usize,
}

impl Waiting {
    /// A queue of at most `limit` bytes, lengths included; room for one datagram at least. Memory
    /// is taken when it is used.
    pub const fn new(limit: usize) -> Self {
        let limit = if limit < FRAMED_LEN_MAX { FRAMED_LEN_MAX } else { limit };
        Self { bytes: VecDeque::new(), limit }
    }

    /// Queues a datagram; how many were dropped for it. One that a stream cannot carry, empty or
    /// too long, is dropped itself.
    pub fn push(&mut self, datagram: &[u8]) -> u64 {
        let framed = LENGTH_LEN + datagram.len();
        if datagram.is_empty() || framed > FRAMED_LEN_MAX {
            return 1;
        }
        let mut dropped = 0;
        while self.bytes.len() + framed > self.limit {
            let first = self.framed_len_at(0);
            self.bytes.drain(..first);
            dropped += 1;
        }
        self.bytes.extend((datagram.len() as u16).to_be_bytes());
        self.bytes.extend(datagram);
        dropped
    }

    /// Moves datagrams to the end of `target`, oldest first, as long as no more than `at_most`
    /// bytes are added. How many they were.
    pub fn take(&mut self, target: &mut Vec<u8>, at_most: usize) -> u64 {
        let (mut datagrams, mut len) = (0, 0);
        while len < self.bytes.len() {
            let first = self.framed_len_at(len);
            if len + first > at_most {
                break;
            }
            len += first;
            datagrams += 1;
        }
        target.extend(self.bytes.drain(..len));
        if self.bytes.is_empty() {
            // What one stall needed is not kept for ever.
            self.bytes.shrink_to(FRAMED_LEN_MAX);
        }
        datagrams
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of the datagram whose length stands at `at`.
    fn framed_len_at(&self, at: usize) -> usize {
        LENGTH_LEN + usize::from(u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]))
    }
}
