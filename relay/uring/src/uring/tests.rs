//! What the io_uring back end assumes of the kernel, one test an assumption, and the conservation
//! of buffers against the kernel's own count.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use io_uring::types::Fixed;
use io_uring::{cqueue, opcode, squeue};

use super::buffers::BufferRing;
use super::ring::Ring;
use super::*;
use crate::address::RawAddress;
use crate::sockets::{SocketId, SocketOptions, Sockets, bind};

const BUFFER_GROUP: u16 = 0;

/// A ring over one socket, without the engine.
struct Bare {
    ring: Ring,
    buffers: Rc<BufferRing>,
    socket: UdpSocket,
}

impl Bare {
    fn new(buffers: u16) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let buffers = BufferRing::new(buffers, 2048).unwrap();
        let mut ring = Ring::new(64, 256, &[socket.as_raw_fd()]).unwrap();
        // SAFETY: the buffers are a field after the ring.
        unsafe { ring.register_buffers(BUFFER_GROUP, buffers.address(), buffers.count()) }.unwrap();
        Self { ring, buffers, socket }
    }

    fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    fn receive_multishot(&mut self) {
        let entry = opcode::RecvMulti::new(Fixed(0), BUFFER_GROUP).build().user_data(1);
        // SAFETY: the entry points to nothing but the buffer group.
        assert!(unsafe { self.ring.push(&entry) });
    }

    /// `to` and `bytes` must live until the ring is entered.
    fn send(&mut self, to: &RawAddress, bytes: &[u8]) {
        let entry = opcode::Send::new(Fixed(0), bytes.as_ptr(), bytes.len() as u32)
            .dest_addr(to.as_ptr())
            .dest_addr_len(to.len())
            .flags(libc::MSG_DONTWAIT)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(2);
        // SAFETY: the callers below enter the ring before `to` or `bytes` change.
        assert!(unsafe { self.ring.push(&entry) });
    }

    fn completions(&mut self) -> Vec<cqueue::Entry> {
        self.ring.completion().collect()
    }
}

#[test]
fn a_consumed_send_has_read_its_bytes_and_address() {
    let mut bare = Bare::new(2);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut to = RawAddress::new(peer.local_addr().unwrap());
    let mut bytes = *b"before";
    for _ in 0..20 {
        bare.send(&to, &bytes);
    }
    bare.ring.enter(None).unwrap();
    assert_eq!(bare.ring.pending(), 0);
    bytes = *b"after!";
    to = RawAddress::new("127.0.0.1:9".parse().unwrap());
    std::hint::black_box((&bytes, &to));
    assert!(bare.completions().is_empty(), "success is silent");
    for _ in 0..20 {
        let mut received = [0; 16];
        let len = peer.recv(&mut received).unwrap();
        assert_eq!(&received[..len], b"before");
    }
}

#[test]
fn a_failed_send_completes_inside_the_enter_that_submits_it() {
    let mut bare = Bare::new(2);
    let port_zero = RawAddress::new("127.0.0.1:0".parse().unwrap());
    let good = RawAddress::new(bare.local());
    bare.send(&port_zero, b"fails");
    bare.send(&good, b"goes");
    bare.send(&port_zero, b"fails");
    bare.ring.enter(None).unwrap();
    assert_eq!(bare.ring.pending(), 0, "a failure does not hold up the rest");
    let results: Vec<_> = bare.completions().iter().map(cqueue::Entry::result).collect();
    assert_eq!(results, [-libc::EINVAL; 2]);
}

#[test]
fn the_kernel_receives_only_inside_enter() {
    let mut bare = Bare::new(4);
    bare.receive_multishot();
    bare.ring.enter(None).unwrap();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", bare.local()).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert!(bare.completions().is_empty());
    assert_eq!(bare.ring.buffer_head(BUFFER_GROUP).unwrap(), 0);
    bare.ring.enter(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(bare.completions().len(), 1);
    assert_eq!(bare.ring.buffer_head(BUFFER_GROUP).unwrap(), 1);
}

/// What waits in the socket is not lost when the ring has no buffer.
#[test]
fn a_multishot_receive_ends_with_enobufs_and_can_start_again() {
    let mut bare = Bare::new(2);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..3u8 {
        peer.send_to(&[number], bare.local()).unwrap();
    }
    bare.receive_multishot();
    bare.ring.enter(Some(Duration::from_secs(5))).unwrap();
    let completions = bare.completions();
    assert_eq!(
        completions.iter().map(cqueue::Entry::result).collect::<Vec<_>>(),
        [1, 1, -libc::ENOBUFS]
    );
    assert!(!cqueue::more(completions[2].flags()));
    for completion in &completions[..2] {
        // SAFETY: the id is from this completion, taken once, and given back at once.
        drop(unsafe { bare.buffers.take(cqueue::buffer_select(completion.flags()).unwrap()) });
    }
    bare.receive_multishot();
    bare.ring.enter(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(bare.completions()[0].result(), 1);
}

/// The port is free at once, and no ring stays open until its thread ends.
#[test]
fn a_dropped_ring_closes_its_sockets() {
    for _ in 0..40 {
        let (mut uring, local) = open(&Options::default());
        uring.turn(&mut Mixed::default(), Duration::ZERO).unwrap();
        drop(uring);
        UdpSocket::bind(local).unwrap();
    }
}

#[derive(Default)]
struct Mixed {
    seen: usize,
    panic_at: Option<usize>,
}

/// Drops, forwards once or often, copies, rewrites, panics: whatever a handler may do.
impl Handler for Mixed {
    fn receive(&mut self, arrival: Received<'_>, tx: &mut Tx<'_>) {
        self.seen += 1;
        assert_ne!(Some(self.seen), self.panic_at, "as asked");
        let Received { socket, source, bytes, segment_size } = arrival;
        match self.seen % 5 {
            0 => {}
            1 => tx.forward(socket, source, bytes, Some(segment_size as u16)),
            2 => tx.send(socket, source, bytes),
            3 => (0..30).for_each(|_| tx.forward(socket, source, &bytes[..bytes.len() / 2], None)),
            _ => {
                tx.forward(socket, "127.0.0.1:0".parse().unwrap(), bytes, None);
                tx.forward(socket, source, bytes, None);
            }
        }
    }

    fn batch_end(&mut self, _: &mut Tx<'_>) {}
}

fn open(options: &Options) -> (Uring, SocketAddr) {
    let sockets =
        bind(&["127.0.0.1:0".parse().unwrap()], 1, &SocketOptions::default()).unwrap().remove(0);
    let local = sockets.locals().next().unwrap().1;
    (Uring::open(sockets, options).unwrap(), local)
}

/// Every buffer is in a ring, by the kernel's own head, or owned by one guard.
fn assert_conserved(uring: &Uring) {
    let (ring, pools) = uring.engine.buffers();
    let mut in_use = 0;
    for (id, buffers) in pools.all() {
        let offered = buffers.tail().wrapping_sub(ring.buffer_head(id.0).unwrap());
        assert_eq!(usize::from(offered), buffers.free());
        in_use += usize::from(buffers.count()) - buffers.free();
    }
    assert_eq!(in_use, uring.engine.held.len() + uring.engine.arrivals.len());
}

/// Buffers that nothing uses, of all pools.
fn free(uring: &Uring) -> usize {
    uring.engine.buffers().1.all().iter().map(|(_, buffers)| buffers.free()).sum()
}

#[test]
fn buffers_are_conserved_whatever_the_handler_does() {
    let options = Options { buffers: 16, sends: 64, ..Options::default() };
    let (mut uring, local) = open(&options);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut handler = Mixed::default();
    for round in 0..300 {
        for number in 0..round % 40 {
            peer.send_to(&vec![0; number * 7], local).unwrap();
        }
        uring.turn(&mut handler, Duration::ZERO).unwrap();
        assert_conserved(&uring);
    }
    while uring.counters.rx_segments.get() < (0..300).map(|round| round % 40).sum() {
        uring.turn(&mut handler, Duration::from_secs(1)).unwrap();
        assert_conserved(&uring);
    }
    for _ in 0..2 {
        uring.turn(&mut handler, Duration::ZERO).unwrap();
    }
    assert_eq!(free(&uring), 16);
    let counters = &uring.counters;
    assert_eq!(counters.tx_planned.get(), counters.tx_datagrams.get() + counters.tx_failed_total());
    assert_eq!(counters.rx_errors.get() + counters.rx_malformed.get(), 0);
}

#[test]
fn a_handler_that_panics_loses_no_buffer() {
    let (mut uring, local) = open(&Options { buffers: 8, ..Options::default() });
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut handler = Mixed::default();
    for round in 1..=50 {
        peer.send_to(b"boom", local).unwrap();
        handler.panic_at = Some(round);
        let turn =
            catch_unwind(AssertUnwindSafe(|| uring.turn(&mut handler, Duration::from_secs(5))));
        assert!(turn.is_err());
        assert_conserved(&uring);
    }
    assert_eq!(free(&uring), 8);
}

/// A payload larger than the buffer is dropped and counted, and its buffer comes back.
#[test]
fn a_truncated_arrival_is_counted() {
    let mut bare = Bare::new(2);
    let header = {
        let mut header = crate::message::empty().msg_hdr;
        header.msg_namelen = 28;
        header.msg_controllen = 48;
        Box::new(header)
    };
    let entry =
        opcode::RecvMsgMulti::new(Fixed(0), &raw const *header, BUFFER_GROUP).build().user_data(1);
    // SAFETY: the header lives to the end of the test, the ring as well; it is entered in between.
    assert!(unsafe { bare.ring.push(&entry) });
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[1; 5000], bare.local()).unwrap();
    bare.ring.enter(Some(Duration::from_secs(5))).unwrap();
    let completion = bare.completions().remove(0);
    // SAFETY: the id is from this completion, taken once.
    let buffer =
        unsafe { bare.buffers.take(cqueue::buffer_select(completion.flags()).unwrap()) }.unwrap();
    let counters = Arc::new(Counters::default());
    let sockets = Sockets::adopt(vec![bare.socket.as_fd().try_clone_to_owned().unwrap()]).unwrap();
    let mut intake = Intake::new(&sockets, counters.clone()).unwrap();
    let arrival =
        engine::describe(&mut intake, &header, SocketId(0), buffer, completion.result() as usize);
    assert!(arrival.is_none());
    assert_eq!(counters.rx_truncated.get(), 1);
    assert_eq!(bare.buffers.free(), 2);
    drop(bare);
}

/// Over sockets enough that one call receives more than a small pool holds: the kernel takes 32
/// arrivals of a socket at a time (io_uring/net.c, MULTISHOT_MAX_RETRY).
fn open_many(options: &Options) -> (Uring, Vec<SocketAddr>) {
    let locals = ["127.0.0.1:0".parse().unwrap(); 17];
    let sockets = bind(&locals, 1, &SocketOptions::default()).unwrap().remove(0);
    let locals = sockets.locals().map(|(_, local)| local).collect();
    (Uring::open(sockets, options).unwrap(), locals)
}

/// A burst that finds too few buffers brings a pool twice as large, up to the limit; the smaller ones
/// go when their buffers are back, and no buffer is lost on the way.
#[test]
fn pools_grow_with_the_load_to_the_limit() {
    let options = Options { buffers: 512, ..Options::default() };
    let (mut uring, locals) = open_many(&options);
    let counters = uring.counters.clone();
    let sizes = |counters: &Counters| (counters.pool_buffers.get(), counters.pool_grown.get());
    assert_eq!(sizes(&counters), (128, 0));
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut handler = Mixed::default();
    let mut sent = 0;
    let mut seen = vec![128];
    for burst in [1, 5, 30, 60, 90, 120, 120, 120, 1] {
        for local in locals.iter().cycle().take(burst * locals.len()) {
            peer.send_to(&[1; 40], local).unwrap();
            sent += 1;
        }
        while counters.rx_segments.get() < sent {
            uring.turn(&mut handler, Duration::from_secs(1)).unwrap();
            assert_conserved(&uring);
            seen.push(counters.pool_buffers.get());
        }
    }
    seen.dedup();
    assert_eq!(seen, [128, 256, 512], "doubled when short, never beyond the limit");
    for _ in 0..3 {
        uring.turn(&mut handler, Duration::ZERO).unwrap();
    }
    assert_eq!(sizes(&counters), (512, 2));
    assert_eq!(uring.engine.buffers().1.count(), 512);
    assert_eq!(
        free(&uring),
        uring.engine.buffers().1.all().iter().map(|(_, ring)| usize::from(ring.count())).sum()
    );
    assert_eq!(counters.rx_kernel_drops.get() + counters.rx_errors.get(), 0);
}

/// A quiet socket goes on with the pool it began with, while busy ones have moved to a larger one.
#[test]
fn a_pool_stays_while_a_receive_uses_it() {
    let options = Options { buffers: 256, ..Options::default() };
    let (mut uring, locals) = open_many(&options);
    let (quiet, busy) = locals.split_last().unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut handler = Mixed::default();
    let (mut sent, mut pools) = (0, Vec::new());
    for (to, count) in [(busy, 1600), (&[*quiet], 1), (&locals, 1700), (&[*quiet], 100)] {
        for local in to.iter().cycle().take(count) {
            peer.send_to(&[1; 40], local).unwrap();
            sent += 1;
        }
        while uring.counters.rx_segments.get() < sent {
            uring.turn(&mut handler, Duration::from_secs(1)).unwrap();
            assert_conserved(&uring);
        }
        pools.push(uring.engine.buffers().1.all().len());
    }
    assert_eq!(uring.counters.pool_buffers.get(), 256);
    assert_eq!(pools[..2], [2, 2]);
}

#[test]
fn a_pool_goes_when_nothing_uses_it() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut pools = pools::Pools::new(8, 128);
    let mut ring = Ring::new(8, 16, &[socket.as_raw_fd()]).unwrap();
    // SAFETY: the ring is declared after the pools, so it is dropped first.
    unsafe { pools.add(&mut ring, 4) }.unwrap();
    let small = pools.newest();
    // SAFETY: no receive was ever started, so every id is free to take once.
    let buffer = unsafe { pools.pool(small).unwrap().take(1) };
    // SAFETY: as above.
    assert!(unsafe { pools.grow(&mut ring) });
    assert_eq!((pools.all().len(), pools.count()), (2, 8));
    // SAFETY: as above.
    assert!(!unsafe { pools.grow(&mut ring) }, "the limit");
    pools.retire(&mut ring, |_| false);
    assert_eq!(pools.all().len(), 2, "a buffer is out");
    drop(buffer);
    pools.retire(&mut ring, |pool| pool == small);
    assert_eq!(pools.all().len(), 2, "a receive uses it");
    pools.retire(&mut ring, |_| false);
    assert_eq!((pools.all().len(), pools.count()), (1, 8));
    assert!(pools.pool(small).is_none() && pools.is_settled());
    assert!(ring.unregister_buffers(small.0).is_err(), "the kernel has let go of it");
}
