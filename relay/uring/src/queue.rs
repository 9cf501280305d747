//! What a handler has asked to send and the kernel has not taken yet.

use std::io;
use std::sync::Arc;

use crate::copies::Copies;
use crate::counters::{Counters, SendFailure};
use crate::gso::{Gso, MAX_SEGMENTS};
use crate::join::Joiner;
use crate::outgoing::{Message, Part};

/// Messages in the order of asking, and the copies they refer to. Allocated once.
///
/// A back end calls [`submission`](Self::submission), submits every message that it gives, calls
/// [`fail`](Self::fail) for each the kernel refused, then [`settle`](Self::settle), and repeats while
/// that leaves messages: trains to be sent again.
#[derive(Debug)]
pub(crate) struct SendQueue {
    pub(crate) messages: Vec<Message>,
    capacity: usize,
    /// Messages of refused trains, which go again as single datagrams, from `resent` on.
    resend: Vec<Message>,
    resent: usize,
    failed_segments: u64,
    failed_bytes: u64,
    pub(crate) copies: Copies,
    joiner: Joiner,
    pub(crate) gso: Gso,
    pub(crate) counters: Arc<Counters>,
}

impl SendQueue {
    pub(crate) fn new(capacity: usize, gso: Gso, counters: Arc<Counters>) -> io::Result<Self> {
        debug_assert!(capacity >= MAX_SEGMENTS, "a train must fit as single datagrams");
        Ok(Self {
            messages: Vec::with_capacity(capacity),
            capacity,
            resend: Vec::with_capacity(capacity),
            resent: 0,
            failed_segments: 0,
            failed_bytes: 0,
            copies: Copies::new()?,
            joiner: Joiner::new(),
            gso,
            counters,
        })
    }

    pub(crate) fn begin_turn(&mut self) {
        self.gso.begin_turn();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether so many bytes can be copied and so many messages pushed.
    pub(crate) fn fits(&self, copied: usize, messages: usize) -> bool {
        self.copies.fits(copied) && self.messages.len() + messages <= self.capacity
    }

    /// Adds a message, for which there is room.
    pub(crate) fn push(&mut self, message: Message) {
        self.counters.tx_planned.add(message.segments.into());
        self.messages.push(message);
        self.joiner.add(&mut self.messages, &self.gso, &self.counters);
    }

    /// The messages from `first` on are one gathered train.
    pub(crate) fn end_chain(&mut self, first: usize) {
        if let Some(last) = self.messages.last_mut() {
            last.next = Message::END;
            self.counters.tx_planned.add(self.messages[first].segments.into());
            self.joiner.add_closed(&self.messages, first);
        }
    }

    /// The messages, which from here on stay as they are until [`settle`](Self::settle). Those that
    /// are [`Part::Later`] are submitted with the first of their chain.
    pub(crate) fn submission(&mut self) -> &[Message] {
        self.joiner.close();
        &self.messages
    }

    /// Counts a message that never entered the queue.
    pub(crate) fn refuse(&self, message: &Message, failure: SendFailure) {
        self.counters.tx_planned.add(message.segments.into());
        self.counters.tx_failures[failure as usize].add(message.segments.into());
    }

    /// The kernel refused message `index` of this submission, and what is chained to it.
    pub(crate) fn fail(&mut self, index: usize, errno: i32) {
        let Some(&first) = self.messages.get(index) else { return };
        let (mut segments, mut bytes) = (0, 0);
        for message in chain(&self.messages, index) {
            segments += u64::from(message.segments);
            bytes += u64::from(message.len);
        }
        self.failed_segments += segments;
        self.failed_bytes += bytes;
        let is_train = segments > 1;
        if is_train && self.gso.learn(first.socket, &first.to, errno, &self.counters) {
            self.counters.gso_resent_trains.add(1);
            self.resend.extend(chain(&self.messages, index));
        } else {
            self.counters.tx_failures[SendFailure::from_errno(errno) as usize].add(segments);
        }
    }

    /// The kernel has taken or refused every message: counts them and empties the queue, but for
    /// datagrams of refused trains to be sent again, as many as there is room for.
    pub(crate) fn settle(&mut self) {
        let (segments, bytes) = self.messages.iter().fold((0, 0), |(segments, bytes), message| {
            (segments + u64::from(message.segments), bytes + u64::from(message.len))
        });
        self.counters.tx_datagrams.add(segments - self.failed_segments);
        self.counters.tx_bytes.add(bytes - self.failed_bytes);
        self.failed_segments = 0;
        self.failed_bytes = 0;
        self.messages.clear();
        self.joiner.close();
        if self.resend.is_empty() {
            self.copies.free();
        } else {
            self.send_again();
        }
    }

    fn send_again(&mut self) {
        self.copies.free_again();
        while let Some(&message) = self.resend.get(self.resent) {
            let room = self.capacity - self.messages.len();
            if usize::from(message.segments) > room {
                return;
            }
            let mut end = self.resent + 1;
            if message.part == Part::Gathered {
                let later = self.resend[end..].iter();
                end += later
                    .take_while(|message| message.part == Part::Later && message.segments == 0)
                    .count();
                if !self.cut_again(self.resent..end) {
                    return;
                }
            } else {
                let alone = Message { next: Message::END, part: Part::Alone, ..message };
                self.messages.extend(alone.split(usize::from(message.segment_size)));
            }
            self.resent = end;
        }
        if self.messages.is_empty() {
            self.copies.free();
        }
        self.resend.clear();
        self.resent = 0;
    }

    /// Copies a gathered train's datagrams, each to one place, and queues them. `false`: first what
    /// goes again already must be gone.
    fn cut_again(&mut self, train: std::ops::Range<usize>) -> bool {
        let pieces = &self.resend[train];
        let len: usize = pieces.iter().map(|piece| piece.len as usize).sum();
        if !self.copies.fits_again(len) {
            return false;
        }
        let mut start = None;
        for piece in pieces {
            // SAFETY: the bytes of a message in the queue are readable until it has settled for good. A
            // handler may still hold its arrival mutably, so they are read by pointer alone.
            let copy = unsafe { self.copies.push_again(piece.bytes, piece.len as usize) };
            start.get_or_insert(copy);
        }
        let whole = Message {
            bytes: start.unwrap_or(std::ptr::null()),
            len: len as u32,
            next: Message::END,
            part: Part::Alone,
            ..pieces[0]
        };
        self.messages.extend(whole.split(usize::from(whole.segment_size)));
        true
    }
}

/// The message at `index` and those that go with it.
pub(crate) fn chain(messages: &[Message], index: usize) -> impl Iterator<Item = &Message> {
    let has_more = |message: &&Message| message.part != Part::Alone;
    std::iter::successors(messages.get(index), move |message| {
        Some(message)
            .filter(|message| has_more(message))
            .and_then(|message| messages.get(message.next as usize))
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::copies::COPIES_LEN;
    use crate::gso::{GsoMode, GsoSwitch};
    use crate::sockets::SocketId;
    use crate::tx::{Flush, Tx};

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
        queue.messages.iter().map(|message| (message.len, message.segment_size)).collect()
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

    /// A full queue was flushed between a copy and its message: the next copy went into the same
    /// place, and its bytes to both receivers.
    #[test]
    fn regression_a_flush_frees_no_copy_that_is_about_to_be_queued() {
        struct Taken;
        impl Flush for Taken {
            fn flush(&mut self, queue: &mut SendQueue) {
                queue.submission();
                queue.settle();
            }
        }
        let mut queue = queue(64);
        (0..64).for_each(|_| forward(&mut queue, b"forwarded", None));
        let mut taken = Taken;
        let mut tx = Tx::new(&mut queue, &mut taken, 0..0);
        tx.send(SocketId(0), to(), b"one party's");
        tx.send(SocketId(0), "192.0.2.2:51820".parse().unwrap(), b"another's");
        let [one, other] = queue.messages.as_slice() else { panic!("both are queued") };
        let [one, other] = [one, other].map(|message| {
            let start = message.bytes.addr();
            start..start + message.len as usize
        });
        assert!(one.end <= other.start || other.end <= one.start, "{one:?} {other:?}");
    }

    #[test]
    fn bytes_from_elsewhere_are_copied() {
        let mut queue = queue(64);
        let arrival = [1; 10];
        let start = arrival.as_ptr().addr();
        let mut stuck = Stuck;
        let mut tx = Tx::new(&mut queue, &mut stuck, start..start + 10);
        let elsewhere = [2; 500];
        tx.forward(SocketId(0), to(), &elsewhere, Some(200));
        assert!(!tx.forwarded());
        assert_eq!(lens(&queue), [(500, 200)]);
        let message = queue.messages[0];
        assert!(message.bytes != elsewhere.as_ptr());
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
