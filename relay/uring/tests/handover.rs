//! Sockets go from one back end to another, under traffic, and nothing is lost.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene fails")]

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use lanrage_relay_uring::{BackendKind, Handler, Options, Received, Sockets, Tx};
use rig::{Each, Rig, forward_to, peer, peer_at, receive};

const ROUNDS: usize = 12;

/// Numbered datagrams, some as trains, until told to stop; how many were sent.
struct Traffic {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    thread: std::thread::JoinHandle<()>,
}

impl Traffic {
    fn start(to: std::net::SocketAddr) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let thread = std::thread::spawn({
            let (stop, sent, source) = (stop.clone(), sent.clone(), peer());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..16 {
                        let number = sent.fetch_add(1, Ordering::Relaxed);
                        source.send_to(&number.to_be_bytes(), to).unwrap();
                    }
                    std::thread::sleep(Duration::from_micros(500));
                }
            }
        });
        Self { stop, sent, thread }
    }

    fn finish(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

/// Drains the one rig and opens the next over the same sockets.
fn hand_over(rig: &mut Rig, sockets: Sockets, to: BackendKind, sink: std::net::SocketAddr) -> Rig {
    let mut handler = forward_to(sink);
    rig.backend.drain(&mut handler).unwrap();
    rig.assert_identity();
    let arrivals = rig.counters.rx_segments.get();
    std::thread::sleep(Duration::from_millis(2));
    let mut next = Rig::over(to, sockets, &Options::default());
    next.backend.resume(&rig.backend.tally());
    assert_eq!(rig.counters.rx_segments.get(), arrivals, "drained, it takes nothing more");
    assert!(next.counters.rx_segments.get() >= arrivals);
    next
}

fn nothing_is_lost(kinds: [BackendKind; 2]) {
    let locals = ["127.0.0.1:0".parse().unwrap()];
    let sockets = lanrage_relay_uring::bind(&locals, 1, &Default::default()).unwrap().pop();
    let sockets = sockets.unwrap();
    let kept = again(&sockets);
    let sink = peer_at("127.0.0.1:0", 100_000);
    let to = sink.local_addr().unwrap();
    let mut rig = Rig::over(kinds[0], sockets, &Options::default());
    let (offloads, locals) =
        (again(&kept).offloads(rig.ids[0]), again(&kept).locals().next().unwrap());
    assert_eq!((offloads.0, locals.1), (true, rig.locals[0]));

    let traffic = Traffic::start(rig.locals[0]);
    for round in 0..ROUNDS {
        for _ in 0..20 {
            rig.turn(&mut forward_to(to));
        }
        if round % 3 == 2 {
            // Called off: the old one goes on.
            rig.backend.drain(&mut forward_to(to)).unwrap();
        } else {
            rig = hand_over(&mut rig, again(&kept), kinds[(round + 1) % 2], to);
        }
    }
    let sent = traffic.finish();
    rig.drive(&mut forward_to(to), |counters| counters.rx_segments.get() >= u64::from(sent));
    assert_eq!(rig.counters.rx_segments.get(), u64::from(sent));
    assert_eq!(rig.counters.tx_datagrams.get(), u64::from(sent), "counts go on");
    assert_eq!((rig.counters.rx_errors.get(), rig.counters.rearms.get()), (0, 0));
    let mut numbers: Vec<u32> =
        (0..sent).map(|_| u32::from_be_bytes(receive(&sink).0.try_into().unwrap())).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..sent), "of {sent} sent");
}

#[test]
fn io_uring_takes_over_from_io_uring() {
    nothing_is_lost([BackendKind::Uring; 2]);
}

#[test]
fn recvmmsg_takes_over_from_recvmmsg() {
    nothing_is_lost([BackendKind::Mmsg; 2]);
}

#[test]
fn the_back_ends_take_over_from_each_other() {
    nothing_is_lost([BackendKind::Uring, BackendKind::Mmsg]);
}

/// The kernel counts a socket's drops from the socket's beginning, whoever receives.
#[test]
fn the_kernels_drops_are_counted_once() {
    for kinds in [[BackendKind::Uring, BackendKind::Mmsg], [BackendKind::Mmsg, BackendKind::Uring]]
    {
        let options =
            lanrage_relay_uring::SocketOptions { receive_buffer: 0, ..Default::default() };
        let locals = ["127.0.0.1:0".parse().unwrap()];
        let sockets = lanrage_relay_uring::bind(&locals, 1, &options).unwrap().pop().unwrap();
        let kept = again(&sockets);
        let mut rig = Rig::over(kinds[0], sockets, &Options::default());
        let (source, sink) = (peer(), peer());
        let to = sink.local_addr().unwrap();
        let seen = |rig: &Rig| rig.counters.rx_segments.get() + rig.counters.rx_kernel_drops.get();
        for _ in 0..500 {
            source.send_to(&[0; 200], rig.locals[0]).unwrap();
        }
        for _ in 0..20 {
            rig.turn(&mut ignore());
        }
        let one_more = |rig: &mut Rig| {
            let before = rig.counters.rx_segments.get();
            source.send_to(b"the next one tells", rig.locals[0]).unwrap();
            rig.drive(&mut ignore(), |counters| counters.rx_segments.get() > before);
        };
        one_more(&mut rig);
        assert_eq!(seen(&rig), 501);
        assert!(rig.counters.rx_kernel_drops.get() > 0, "the scene");

        // One waits when the next opens.
        rig.backend.drain(&mut ignore()).unwrap();
        source.send_to(b"waits", rig.locals[0]).unwrap();
        let mut next = hand_over(&mut rig, kept, kinds[1], to);
        next.drive(&mut ignore(), |counters| {
            counters.rx_segments.get() > rig.counters.rx_segments.get()
        });
        one_more(&mut next);
        assert_eq!(seen(&next), 503);
    }
}

fn ignore() -> impl Handler {
    Each(|_: Received<'_>, _: &mut Tx<'_>| {})
}

fn again(sockets: &Sockets) -> Sockets {
    Sockets::adopt(sockets.duplicate().unwrap()).unwrap()
}

#[test]
fn only_bound_udp_sockets_are_adopted() {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(Sockets::adopt(vec![tcp.into()]).is_err());
    let unbound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    assert!(Sockets::adopt(vec![unbound.into()]).is_err());
    assert!(Sockets::adopt(vec![std::fs::File::open("/dev/null").unwrap().into()]).is_err());
    assert!(Sockets::adopt(Vec::new()).is_err());
}
