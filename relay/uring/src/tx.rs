//! What a handler sends with.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

use crate::counters::SendFailure;
use crate::handler::segments;
use crate::outgoing::{Message, Part, train_len_max};
use crate::queue::SendQueue;
use crate::sockets::SocketId;

/// Most pieces of memory in one train: a header and a payload for each of 64 segments, and as many
/// again where pieces and segments do not end together. What is in more pieces is copied.
pub(crate) const PIECES_MAX: usize = 256;

/// Where a handler puts what is to be sent. It is sent with the rest of the batch, or sooner if
/// the queue is full. What cannot be sent is counted, never an error.
///
/// Datagrams of equal length to one destination leave as one train where that costs less. Their
/// order is kept.
pub struct Tx<'a> {
    queue: &'a mut SendQueue,
    flush: &'a mut dyn Flush,
    /// Addresses of the arrival being handled; empty at the end of a batch.
    arrival: Range<usize>,
    /// The queue refers to the arrival's buffer.
    forwarded: bool,
}

/// Makes room in a full queue: hands what is in it to the kernel.
pub(crate) trait Flush {
    /// The queue may stay full if the kernel takes nothing.
    fn flush(&mut self, queue: &mut SendQueue);
}

impl<'a> Tx<'a> {
    pub(crate) fn new(
        queue: &'a mut SendQueue,
        flush: &'a mut dyn Flush,
        arrival: Range<usize>,
    ) -> Self {
        Self { queue, flush, arrival, forwarded: false }
    }

    pub(crate) fn forwarded(&self) -> bool {
        self.forwarded
    }

    /// Sends `bytes`, a part of the arrival being handled, without copying it: what the buffer holds
    /// when the batch is submitted is sent, so bytes forwarded must not be rewritten afterwards.
    /// Bytes from elsewhere are copied, as by [`send`](Self::send).
    ///
    /// With a `segment_size` smaller than `bytes` they go as datagrams of that size, the last
    /// perhaps shorter: as one train (UDP_SEGMENT) where that works, else one by one.
    pub fn forward(
        &mut self,
        socket: SocketId,
        to: SocketAddr,
        bytes: &[u8],
        segment_size: Option<u16>,
    ) {
        if self.is_of_arrival(bytes) {
            self.forwarded = true;
            self.enqueue(Message::new(socket, to, bytes.as_ptr(), bytes.len(), segment_size));
        } else {
            self.copy(socket, to, bytes, segment_size);
        }
    }

    /// Sends a copy of `bytes` as one datagram.
    pub fn send(&mut self, socket: SocketId, to: SocketAddr, bytes: &[u8]) {
        self.copy(socket, to, bytes, None);
    }

    /// Sends `pieces`, one after the other, as datagrams of `segment_size` bytes, the last perhaps
    /// shorter: as one train where that works. A datagram may lie in several pieces: so each segment
    /// of an arrival can get another header. Pieces of the arrival being handled are not copied, as
    /// by [`forward`](Self::forward); others are.
    pub fn forward_gathered(
        &mut self,
        socket: SocketId,
        to: SocketAddr,
        pieces: &[&[u8]],
        segment_size: u16,
    ) {
        let size = usize::from(segment_size.max(1));
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let model = Message::new(socket, to, std::ptr::null(), total, Some(segment_size));
        let is_train = model.segment_size != 0;
        let step = match self.queue.gso.allows(socket, &model.to) || !is_train {
            true => train_len_max(size),
            false => size,
        };
        for start in (0..total.max(1)).step_by(step) {
            let range = start..total.min(start + step);
            let train = Message {
                segments: segments(range.len(), size) as u16,
                segment_size,
                len: range.len() as u32,
                ..model
            };
            // A datagram that would be sent by itself is better off in one piece.
            let count = cut(pieces, range.clone()).count();
            if train.segments == 1 || count > PIECES_MAX {
                self.copy_pieces(train, cut(pieces, range));
            } else {
                self.enqueue_chain(train, cut(pieces, range), count);
            }
        }
    }

    fn is_of_arrival(&self, bytes: &[u8]) -> bool {
        let start = bytes.as_ptr().addr();
        self.arrival.start <= start && start + bytes.len() <= self.arrival.end
    }

    fn copy(&mut self, socket: SocketId, to: SocketAddr, bytes: &[u8], segment_size: Option<u16>) {
        let message = Message::new(socket, to, bytes.as_ptr(), bytes.len(), segment_size);
        if self.has_room_for_copy(&message) {
            let bytes = self.queue.copies.push(bytes);
            self.enqueue(Message { bytes, ..message });
        }
    }

    /// Copies the pieces of a datagram or train to one place.
    fn copy_pieces<'p>(&mut self, train: Message, pieces: impl Iterator<Item = &'p [u8]>) {
        if self.has_room_for_copy(&train) {
            let bytes = self.queue.copies.push_all(pieces);
            let segment_size = if train.segments == 1 { 0 } else { train.segment_size };
            self.enqueue(Message { bytes, segment_size, ..train });
        }
    }

    fn enqueue(&mut self, message: Message) {
        let whole = message.segment_size == 0 || self.queue.gso.allows(message.socket, &message.to);
        let size = usize::from(message.segment_size);
        let step = match (whole, size) {
            (_, 0) => 0,
            (true, size) => train_len_max(size),
            (false, size) => size,
        };
        for part in message.split(step) {
            if self.has_room(&part, 0, 1) {
                self.queue.push(part);
            }
        }
    }

    fn enqueue_chain<'p>(
        &mut self,
        train: Message,
        pieces: impl Iterator<Item = &'p [u8]> + Clone,
        count: usize,
    ) {
        let foreign = pieces.clone().filter(|piece| !self.is_of_arrival(piece));
        let copied = foreign.map(<[u8]>::len).sum();
        if !self.has_room(&train, copied, count) {
            return;
        }
        let first = self.queue.messages.len();
        for piece in pieces {
            let bytes = if self.is_of_arrival(piece) {
                self.forwarded = true;
                piece.as_ptr()
            } else {
                self.queue.copies.push(piece)
            };
            let is_first = self.queue.messages.len() == first;
            self.queue.messages.push(Message {
                bytes,
                len: piece.len() as u32,
                next: self.queue.messages.len() as u32 + 1,
                segments: if is_first { train.segments } else { 0 },
                part: if is_first { Part::Gathered } else { Part::Later },
                ..train
            });
        }
        self.queue.end_chain(first);
    }

    /// For all parts at once, however it is cut: a flush between copying and the last of them would
    /// free the copy.
    fn has_room_for_copy(&mut self, message: &Message) -> bool {
        self.has_room(message, message.len as usize, message.segments.into())
    }

    /// Sees to room for `copied` bytes and `count` messages. `false`: there is none, and `message`
    /// was counted as not sent.
    fn has_room(&mut self, message: &Message, copied: usize, count: usize) -> bool {
        if !self.queue.copies.fits_ever(copied) {
            self.queue.refuse(message, SendFailure::MessageSize);
            return false;
        }
        if !self.queue.fits(copied, count) {
            self.flush.flush(self.queue);
        }
        let fits = self.queue.fits(copied, count);
        if !fits {
            self.queue.refuse(message, SendFailure::Backlog);
        }
        fits
    }
}

/// The parts of `pieces` in a range of the bytes that they are one after the other.
fn cut<'p>(pieces: &[&'p [u8]], range: Range<usize>) -> impl Iterator<Item = &'p [u8]> + Clone {
    let mut end = 0;
    pieces.iter().filter_map(move |piece| {
        let start = end;
        end += piece.len();
        let from = range.start.clamp(start, end) - start;
        let to = range.end.clamp(start, end) - start;
        (from < to).then(|| &piece[from..to])
    })
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("queued", &self.queue.messages.len()).finish_non_exhaustive()
    }
}
