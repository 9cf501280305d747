//! What a handler has asked to send and the kernel has not taken yet.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use crate::address::RawAddress;
use crate::counters::{Counters, SendFailure};
use crate::gso::{Gso, MAX_SEGMENTS};
use crate::handler::segments;
use crate::mapping::Mapping;
use crate::sockets::SocketId;

/// Bytes for copies between two submissions: the largest datagram fits several times.
const COPIES_LEN: usize = 256 * 1024;

/// 65,535 less the IPv4 and UDP headers; over IPv6 more fits, but never more than one segment.
const MAX_PAYLOAD_V4: usize = 65_535 - 20 - 8;

/// Where a handler puts what is to be sent. It is sent with the rest of the batch, or sooner if
/// the queue is full. What cannot be sent is counted, never an error.
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
        let start = bytes.as_ptr().addr();
        if self.arrival.start <= start && start + bytes.len() <= self.arrival.end {
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

    fn copy(&mut self, socket: SocketId, to: SocketAddr, bytes: &[u8], segment_size: Option<u16>) {
        // A zero-length datagram still needs an address to point at.
        let room = bytes.len().max(1);
        if self.queue.copies_used + room > COPIES_LEN && room <= COPIES_LEN {
            self.flush.flush(self.queue);
        }
        let message = Message::new(socket, to, bytes.as_ptr(), bytes.len(), segment_size);
        if self.queue.copies_used + room > COPIES_LEN {
            let failure =
                if room > COPIES_LEN { SendFailure::MessageSize } else { SendFailure::Backlog };
            self.queue.refuse(&message, failure);
            return;
        }
        let copy = self.queue.copies.at(self.queue.copies_used);
        self.queue.copies_used += room;
        // SAFETY:
        // - the copy lies in the mapping: `copies_used + room <= COPIES_LEN`, its length;
        // - this part of it was free, so the kernel does not read it, nor does it overlap `bytes`.
        unsafe { copy.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.enqueue(Message { bytes: copy.as_ptr(), ..message });
    }

    fn enqueue(&mut self, message: Message) {
        let whole = message.segment_size == 0 || self.queue.gso.allows(message.socket, &message.to);
        let step = if whole { message.train_len() } else { usize::from(message.segment_size) };
        for part in message.split(step) {
            if self.queue.is_full() {
                self.flush.flush(self.queue);
            }
            if self.queue.is_full() {
                self.queue.refuse(&part, SendFailure::Backlog);
            } else {
                self.queue.counters.tx_planned.add(part.segments() as u64);
                self.queue.messages.push(part);
            }
        }
    }
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("queued", &self.queue.messages.len()).finish_non_exhaustive()
    }
}

/// One datagram or one train to send. `bytes` must stay readable and unchanged until the kernel has
/// taken it: it points into a receive buffer that the back end holds, or into the queue's copies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub(crate) to: RawAddress,
    pub(crate) bytes: *const u8,
    pub(crate) len: u32,
    /// 0: a single datagram.
    pub(crate) segment_size: u16,
    pub(crate) socket: SocketId,
}

impl Message {
    fn new(
        socket: SocketId,
        to: SocketAddr,
        bytes: *const u8,
        len: usize,
        segment_size: Option<u16>,
    ) -> Self {
        let segment_size = segment_size.filter(|size| usize::from(*size) < len).unwrap_or(0);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        Self { to: RawAddress::new(to), bytes, len, segment_size, socket }
    }

    pub(crate) fn segments(&self) -> usize {
        match self.segment_size {
            0 => 1,
            size => segments(self.len as usize, usize::from(size)),
        }
    }

    /// Bytes of the longest train the kernel takes at once.
    fn train_len(&self) -> usize {
        let size = usize::from(self.segment_size);
        size * (MAX_PAYLOAD_V4 / size.max(1)).clamp(1, MAX_SEGMENTS)
    }

    /// The message in parts of `step` bytes; whole if `step` is 0.
    fn split(self, step: usize) -> impl Iterator<Item = Self> {
        let len = self.len as usize;
        let step = if step == 0 { len.max(1) } else { step };
        (0..len.max(1)).step_by(step).map(move |start| {
            let part = step.min(len - start.min(len));
            Self {
                bytes: self.bytes.wrapping_add(start),
                len: part as u32,
                segment_size: if part > usize::from(self.segment_size) {
                    self.segment_size
                } else {
                    0
                },
                ..self
            }
        })
    }
}

/// Messages in the order of asking, and the copies they refer to. Allocated once.
///
/// A back end submits all messages, calls [`fail`](Self::fail) for each the kernel refused, then
/// [`settle`](Self::settle), and repeats while that leaves messages: trains to be sent again.
#[derive(Debug)]
pub(crate) struct SendQueue {
    messages: Vec<Message>,
    capacity: usize,
    /// Trains refused in this submission that go again as single datagrams.
    resend: Vec<Message>,
    failed_segments: u64,
    failed_bytes: u64,
    copies_used: usize,
    gso: Gso,
    pub(crate) counters: Arc<Counters>,
    copies: Mapping,
}

impl SendQueue {
    pub(crate) fn new(capacity: usize, gso: Gso, counters: Arc<Counters>) -> io::Result<Self> {
        debug_assert!(capacity >= MAX_SEGMENTS, "a train must fit as single datagrams");
        Ok(Self {
            messages: Vec::with_capacity(capacity),
            capacity,
            resend: Vec::with_capacity(capacity),
            failed_segments: 0,
            failed_bytes: 0,
            copies_used: 0,
            gso,
            counters,
            copies: Mapping::new(COPIES_LEN)?,
        })
    }

    pub(crate) fn begin_turn(&mut self) {
        self.gso.begin_turn();
    }

    /// The messages; their addresses stay until [`settle`](Self::settle).
    pub(crate) fn messages(&self) -> &[Message] {
        &self.messages
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn is_full(&self) -> bool {
        self.messages.len() == self.capacity
    }

    /// Counts a message that never entered the queue.
    fn refuse(&self, message: &Message, failure: SendFailure) {
        let segments = message.segments() as u64;
        self.counters.tx_planned.add(segments);
        self.counters.tx_failures[failure as usize].add(segments);
    }

    /// The kernel refused message `index` of this submission.
    pub(crate) fn fail(&mut self, index: usize, errno: i32) {
        let Some(&message) = self.messages.get(index) else { return };
        let segments = message.segments() as u64;
        self.failed_segments += segments;
        self.failed_bytes += u64::from(message.len);
        let train = message.segment_size != 0;
        if train && self.gso.learn(message.socket, &message.to, errno, &self.counters) {
            self.counters.gso_resent_trains.add(1);
            self.resend.push(message);
        } else {
            self.counters.tx_failures[SendFailure::from_errno(errno) as usize].add(segments);
        }
    }

    /// The kernel has taken or refused every message: counts them and empties the queue, but for
    /// one train at a time to be sent again.
    pub(crate) fn settle(&mut self) {
        let (segments, bytes) = self.messages.iter().fold((0, 0), |(segments, bytes), message| {
            (segments + message.segments() as u64, bytes + u64::from(message.len))
        });
        self.counters.tx_datagrams.add(segments - self.failed_segments);
        self.counters.tx_bytes.add(bytes - self.failed_bytes);
        self.failed_segments = 0;
        self.failed_bytes = 0;
        self.messages.clear();
        match self.resend.pop() {
            Some(train) => self.messages.extend(train.split(usize::from(train.segment_size))),
            None => self.copies_used = 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gso::{GsoMode, GsoSwitch};

    /// A kernel that takes nothing.
    struct Stuck;

    impl Flush for Stuck {
        fn flush(&mut self, _: &mut SendQueue) {}
    }

    fn queue(capacity: usize) -> SendQueue {
        let gso = Gso::new(GsoSwitch::new(GsoMode::Auto), [true, true].into_iter());
        SendQueue::new(capacity, gso, Arc::new(Counters::default())).unwrap()
    }

    fn to() -> SocketAddr {
        "192.0.2.1:51820".parse().unwrap()
    }

    fn forward(queue: &mut SendQueue, bytes: &[u8], segment_size: Option<u16>) {
        let start = bytes.as_ptr().addr();
        let mut stuck = Stuck;
        let mut tx = Tx::new(queue, &mut stuck, start..start + bytes.len());
        tx.forward(SocketId(0), to(), bytes, segment_size);
        assert!(tx.forwarded());
    }

    fn lens(queue: &SendQueue) -> Vec<(u32, u16)> {
        queue.messages().iter().map(|message| (message.len, message.segment_size)).collect()
    }

    #[test]
    fn trains_are_cut_to_what_the_kernel_takes() {
        let parts = |len, segment_size| {
            let mut queue = queue(64);
            forward(&mut queue, &vec![0; len], Some(segment_size));
            lens(&queue)
        };
        assert_eq!(parts(0, 100), [(0, 0)]);
        assert_eq!(parts(100, 100), [(100, 0)]);
        assert_eq!(parts(101, 100), [(101, 100)]);
        assert_eq!(parts(6400, 100), [(6400, 100)]);
        assert_eq!(parts(6401, 100), [(6400, 100), (1, 0)]);
        assert_eq!(parts(65_535, 1400), [(46 * 1400, 1400), (1135, 0)]);
        assert_eq!(parts(65_535, 65_534), [(65_534, 0), (1, 0)]);
        let mut queue = queue(64);
        forward(&mut queue, &[0; 300], Some(0));
        assert_eq!(lens(&queue), [(300, 0)], "no size, no train");
    }

    #[test]
    fn bytes_from_elsewhere_are_copied() {
        let mut queue = queue(64);
        let arrival = [1; 10];
        let start = arrival.as_ptr().addr();
        let mut stuck = Stuck;
        let mut tx = Tx::new(&mut queue, &mut stuck, start..start + 10);
        tx.forward(SocketId(0), to(), &[2; 500], Some(200));
        assert!(!tx.forwarded());
        assert_eq!(lens(&queue), [(500, 200)]);
        let message = queue.messages()[0];
        assert_eq!(message.bytes, queue.copies.at(0).as_ptr().cast_const());
    }

    /// The device cannot segment: the train goes again in pieces, and so do later trains at once.
    #[test]
    fn eio_sends_the_train_again_and_stops_trying() {
        let mut queue = queue(64);
        let bytes = [0; 1000];
        forward(&mut queue, &bytes, Some(300));
        forward(&mut queue, &bytes, None);
        queue.fail(0, libc::EIO);
        queue.settle();
        assert_eq!(queue.counters.tx_datagrams.get(), 1);
        assert_eq!(lens(&queue), [(300, 0), (300, 0), (300, 0), (100, 0)]);
        queue.fail(3, libc::EAGAIN);
        queue.settle();
        assert!(queue.is_empty());
        assert_eq!((queue.counters.tx_datagrams.get(), queue.counters.tx_bytes.get()), (4, 1900));
        assert_eq!(queue.counters.tx_failed(SendFailure::WouldBlock), 1);
        assert_eq!(queue.counters.gso_disabled_sockets.get(), 1);

        forward(&mut queue, &bytes, Some(300));
        assert_eq!(lens(&queue).len(), 4, "no train on that socket any more");
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut queue = queue(64);
        let counters = queue.counters.clone();
        for _ in 0..70 {
            forward(&mut queue, &[0; 10], None);
        }
        assert_eq!(counters.tx_failed(SendFailure::Backlog), 6);
        queue.settle();
        let mut stuck = Stuck;
        let mut tx = Tx::new(&mut queue, &mut stuck, 0..0);
        for _ in 0..5 {
            tx.send(SocketId(0), to(), &[0; 60_000]);
        }
        assert_eq!(counters.tx_failed(SendFailure::Backlog), 7, "copies are bounded, too");
        tx.send(SocketId(0), to(), &vec![0; COPIES_LEN + 1]);
        assert_eq!(counters.tx_failed(SendFailure::MessageSize), 1);
        queue.settle();
        assert_eq!(
            counters.tx_planned.get(),
            counters.tx_datagrams.get() + counters.tx_failed_total()
        );
    }
}
