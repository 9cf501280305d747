//! The kernel's side of the io_uring back end: stage, enter, reap, settle.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::Duration;

use io_uring::types::{Fixed, RecvMsgOut};
use io_uring::{cqueue, opcode, squeue};

use super::buffers::Buffer;
use super::pools::{PoolId, Pools};
use super::ring::Ring;
use super::user_data::UserData;
use crate::address::ADDRESS_LEN;
use crate::arrival::{Description, Intake, MAX_PAYLOAD, Origin};
use crate::backend::Options;
use crate::control::RECEIVE_LEN;
use crate::message::{self, Headers};
use crate::outgoing::{Message, Part};
use crate::probe::Refusal;
use crate::queue::SendQueue;
use crate::sockets::{SocketId, Sockets};
use crate::tx::Flush;
use crate::waker::Waker;

/// `struct io_uring_recvmsg_out`, linux/io_uring.h: four u32.
const OUT_LEN: usize = 16;
/// A buffer is: out header, name, control, payload.
const PAYLOAD_START: usize = OUT_LEN + ADDRESS_LEN + RECEIVE_LEN;
/// A step that is no multiple of a page, so that the headers of neighbours differ in cache set.
const STRIDE: usize = (PAYLOAD_START + MAX_PAYLOAD).next_multiple_of(64);
const _: () = assert!(!STRIDE.is_multiple_of(4096));

/// The ring, and everything the kernel may read or write through it.
#[derive(Debug)]
pub(super) struct Engine {
    /// Dropped first: then no operation is left that could touch the fields below.
    ring: Ring,
    pub(super) arrivals: VecDeque<Arrival>,
    /// Buffers the queue refers to: the kernel's again when the queue has settled.
    pub(super) held: Vec<Buffer>,
    headers: Headers,
    /// The name and control room of every receive.
    receive_header: Box<libc::msghdr>,
    pools: Pools,
    /// A receive has ended for lack of buffers in the newest pool.
    is_starved: bool,
    pub(super) intake: Intake,
    /// Messages of the queue that are in the submission queue, or consumed.
    staged: usize,
    /// By socket: its multishot receive is under way.
    armed: Box<[Armed]>,
    /// The socket that is armed first, another each turn.
    first_armed: usize,
    is_waker_armed: bool,
    waker: Waker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Armed {
    Never,
    Yes(PoolId),
    /// For lack of a buffer.
    Starved,
    /// For any other reason.
    Ended,
}

/// A datagram or train in its buffer.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) origin: Origin,
    buffer: Buffer,
    payload: Range<usize>,
}

impl Arrival {
    pub(super) fn payload(&self) -> &[u8] {
        &self.buffer.bytes()[self.payload.clone()]
    }

    pub(super) fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.bytes_mut()[self.payload.clone()]
    }

    pub(super) fn into_buffer(self) -> Buffer {
        self.buffer
    }
}

impl Engine {
    /// Sets up the ring as it will be used, and starts receiving.
    pub(super) fn new(
        sockets: &Sockets,
        waker: Waker,
        intake: Intake,
        queue: &mut SendQueue,
        options: &Options,
    ) -> Result<Self, Refusal> {
        let mut pools = Pools::new(options.buffers() as u16, STRIDE);
        let files: Vec<_> = sockets.descriptors().chain([waker.descriptor()]).collect();
        let entries = (options.sends() + files.len()).next_power_of_two() as u32;
        let completions = 2 * (options.buffers() as u32 + entries);
        let mut ring = Ring::new(entries, completions, &files)
            .map_err(|(step, error)| Refusal::new(step, error))?;
        // SAFETY: `pools` is a field of the same structure as the ring, declared after it; until
        // then, and on an early return, it is a variable declared before it.
        unsafe { pools.add(&mut ring, options.buffers_at_first() as u16) }
            .map_err(|error| Refusal::new("registering the buffer ring", error))?;
        ring.register_descriptor();
        queue.counters.pool_buffers.set(pools.count().into());
        let mut receive_header = Box::new(message::empty().msg_hdr);
        receive_header.msg_namelen = ADDRESS_LEN as libc::socklen_t;
        receive_header.msg_controllen = RECEIVE_LEN as _;
        let mut engine = Self {
            ring,
            arrivals: VecDeque::with_capacity(options.buffers()),
            held: Vec::with_capacity(options.buffers()),
            headers: Headers::new(options.sends()),
            receive_header,
            pools,
            is_starved: false,
            intake,
            staged: 0,
            armed: vec![Armed::Never; sockets.count()].into(),
            first_armed: 0,
            is_waker_armed: false,
            waker,
        };
        engine.arm(queue);
        engine.settle(queue, None).map_err(|error| Refusal::new("io_uring_enter", error))?;
        // A kernel without multishot receive fails it at once (before Linux 6.0). ENOBUFS is no such
        // failure: more may be waiting in the socket already than there are buffers.
        if queue.counters.rx_errors.get() > 0 {
            return Err(Refusal::new(
                "multishot receive",
                io::Error::from_raw_os_error(libc::EINVAL),
            ));
        }
        Ok(engine)
    }

    /// Submits the queue, and waits for arrivals in the same call unless some are left over.
    pub(super) fn wait(&mut self, queue: &mut SendQueue, timeout: Duration) -> io::Result<()> {
        // Buffers of the former batch are held until its sends are submitted. If that leaves few, get
        // them back first, or the receive would end for lack of buffers.
        if self.pools.is_short() {
            self.settle(queue, None)?;
        }
        self.arm(queue);
        let timeout = if self.arrivals.is_empty() { timeout } else { Duration::ZERO };
        self.settle(queue, Some(timeout))
    }

    /// Submits the queue until nothing is left of it. If the kernel consumes only a part, the rest
    /// stays for the next call, and so do the buffers.
    fn settle(&mut self, queue: &mut SendQueue, mut wait: Option<Duration>) -> io::Result<()> {
        loop {
            self.stage(queue);
            if wait.is_some() || self.ring.pending() > 0 {
                queue.counters.syscalls.add(1);
                self.ring.enter(wait.take())?;
                self.reap(queue);
            }
            if self.ring.pending() > 0 || self.staged < queue.messages.len() {
                return Ok(());
            }
            self.staged = 0;
            self.headers.clear();
            queue.settle();
            if queue.is_empty() {
                self.held.clear();
                return Ok(());
            }
        }
    }

    /// Ends every receive and takes what it has received until then. The next
    /// [`wait`](Self::wait) starts them again.
    pub(super) fn quiesce(&mut self, queue: &mut SendQueue) -> io::Result<()> {
        while self.armed.iter().any(|armed| matches!(armed, Armed::Yes(_))) {
            // Cancelled operations complete inside the call or at the next enter: a multishot receive
            // by a last completion without MORE, after those of all that it took.
            self.ring.cancel_all()?;
            self.settle(queue, Some(Duration::ZERO))?;
        }
        self.armed.fill(Armed::Never);
        self.submit_all(queue)
    }

    /// Submits the queue until the kernel has consumed all of it.
    pub(super) fn submit_all(&mut self, queue: &mut SendQueue) -> io::Result<()> {
        self.settle(queue, None)?;
        while !queue.is_empty() {
            // The kernel lacks memory for a request: nothing else keeps a send from being consumed.
            std::thread::yield_now();
            self.settle(queue, None)?;
        }
        Ok(())
    }

    /// Starts each receive, and the waker's poll, that is not under way.
    fn arm(&mut self, queue: &SendQueue) {
        self.size_pools(queue);
        let (pool, is_exhausted) = (self.pools.newest(), self.pools.is_exhausted());
        // Who is armed first takes the first buffers, of few perhaps all: not always the same.
        self.first_armed = (self.first_armed + 1) % self.armed.len();
        let (before, from) = self.armed.split_at_mut(self.first_armed);
        let from = (self.first_armed..).zip(from);
        for (index, armed) in from.chain(before.iter_mut().enumerate()) {
            if matches!(armed, Armed::Yes(_)) || is_exhausted {
                continue;
            }
            let entry = opcode::RecvMsgMulti::new(
                Fixed(index as u32),
                &raw const *self.receive_header,
                pool.0,
            )
            .build()
            .user_data(UserData::Receive(SocketId(index as u8), pool).pack());
            // SAFETY: the header and the buffers outlive the ring, see the order of the fields.
            if unsafe { self.ring.push(&entry) } {
                if *armed == Armed::Ended {
                    queue.counters.rearms.add(1);
                }
                *armed = Armed::Yes(pool);
            }
        }
        if !self.is_waker_armed {
            let entry = opcode::PollAdd::new(Fixed(self.armed.len() as u32), libc::POLLIN as u32)
                .multi(true)
                .build()
                .user_data(UserData::Wake.pack());
            // SAFETY: a poll points to nothing.
            if unsafe { self.ring.push(&entry) } {
                self.is_waker_armed = true;
            }
        }
    }

    /// Makes a larger pool if the newest was too small, and lets go of smaller ones.
    fn size_pools(&mut self, queue: &SendQueue) {
        if std::mem::take(&mut self.is_starved) {
            // SAFETY: the ring is a field before the pools.
            if unsafe { self.pools.grow(&mut self.ring) } {
                queue.counters.pool_grown.add(1);
                queue.counters.pool_buffers.set(self.pools.count().into());
            }
        }
        if !self.pools.is_settled() {
            let Self { pools, ring, armed, .. } = self;
            pools.retire(ring, |pool| armed.contains(&Armed::Yes(pool)));
        }
    }

    /// Moves the queue's messages to the submission queue, as far as there is room.
    fn stage(&mut self, queue: &mut SendQueue) {
        let mut submission = self.ring.submission();
        let messages = queue.submission();
        for index in self.staged..messages.len() {
            if submission.is_full() {
                break;
            }
            self.staged = index + 1;
            let Some(entry) = send_entry(messages, index, &mut self.headers) else { continue };
            // SAFETY: a send with MSG_DONTWAIT ends inside `enter`. Until then
            // - the message stays where it is: the queue settles only when all is consumed;
            // - its bytes stay: they are among the queue's copies, or in an arrival's buffer, which `held`
            //   has, or `dispatch` while its handler runs; a handler that unwinds ends the shard;
            // - its header stays: slot `index` is written again only after the queue settled;
            // - if `self` is dropped before, the ring goes first, and consumes them on its way.
            let pushed = unsafe { submission.push(&entry) };
            debug_assert!(pushed.is_ok(), "there was room");
        }
    }

    /// Takes all completions.
    fn reap(&mut self, queue: &mut SendQueue) {
        for completion in self.ring.completion() {
            let (result, flags) = (completion.result(), completion.flags());
            match UserData::unpack(completion.user_data()) {
                Some(UserData::Send(index)) => queue.fail(index as usize, -result),
                Some(UserData::Receive(socket, pool)) => {
                    // SAFETY: the id comes from this completion, which is seen once, and the completion
                    // names the pool that its receive was armed with.
                    let buffer = cqueue::buffer_select(flags)
                        .zip(self.pools.pool(pool))
                        .and_then(|(id, pool)| unsafe { pool.take(id) });
                    if !cqueue::more(flags) {
                        let starved = result == -libc::ENOBUFS;
                        self.is_starved |= starved && pool == self.pools.newest();
                        self.armed[socket.index()] =
                            if starved { Armed::Starved } else { Armed::Ended };
                    }
                    match (usize::try_from(result), buffer) {
                        (Ok(len), Some(buffer)) => {
                            self.arrivals.extend(describe(
                                &mut self.intake,
                                &self.receive_header,
                                socket,
                                buffer,
                                len,
                            ));
                        }
                        (Ok(_), None) => queue.counters.rx_malformed.add(1),
                        (Err(_), _) if result == -libc::ENOBUFS => queue.counters.enobufs.add(1),
                        // By `quiesce`.
                        (Err(_), _) if result == -libc::ECANCELED => {}
                        (Err(_), _) => queue.counters.rx_errors.add(1),
                    }
                }
                Some(UserData::Wake) => {
                    if !cqueue::more(flags) {
                        self.is_waker_armed = false;
                    }
                    if self.waker.clear() {
                        queue.counters.wakeups.add(1);
                    }
                }
                None => {
                    debug_assert!(false, "a completion of nothing we submitted: {completion:?}")
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn buffers(&self) -> (&Ring, &Pools) {
        (&self.ring, &self.pools)
    }
}

impl Flush for Engine {
    fn flush(&mut self, queue: &mut SendQueue) {
        // An error here meets the next turn's `wait`, too, which reports it.
        let _ = self.settle(queue, None);
    }
}

/// `None` for what goes with the first of its chain. SEND needs no message header, and only fails are
/// reported.
fn send_entry(messages: &[Message], index: usize, headers: &mut Headers) -> Option<squeue::Entry> {
    let message = &messages[index];
    if message.part == Part::Later {
        return None;
    }
    let socket = Fixed(message.socket.index() as u32);
    let entry = if message.segment_size == 0 && message.part == Part::Alone {
        opcode::Send::new(socket, message.bytes, message.len)
            .dest_addr(message.to.as_ptr())
            .dest_addr_len(message.to.len())
            .flags(libc::MSG_DONTWAIT)
            .build()
    } else {
        opcode::SendMsg::new(socket, headers.write(index, messages, index))
            .flags(libc::MSG_DONTWAIT as u32)
            .build()
    };
    let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
    Some(entry.user_data(UserData::Send(index as u32).pack()))
}

/// The arrival in the first `len` bytes of `buffer`; `None` if it was dropped, and counted.
pub(super) fn describe(
    intake: &mut Intake,
    header: &libc::msghdr,
    socket: SocketId,
    buffer: Buffer,
    len: usize,
) -> Option<Arrival> {
    let bytes = buffer.bytes();
    let Ok(out) = RecvMsgOut::parse(&bytes[..len.min(bytes.len())], header) else {
        intake.malformed();
        return None;
    };
    let payload = PAYLOAD_START..PAYLOAD_START + out.payload_data().len();
    let origin = intake.admit(&Description {
        socket,
        name: out.name_data(),
        control: out.control_data(),
        truncated: out.is_payload_truncated(),
        len: payload.len(),
    })?;
    Some(Arrival { origin, buffer, payload })
}
