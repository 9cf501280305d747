//! Sends the kernel refuses, in a network namespace whose loopback has an Ethernet's MTU.
//!
//! Needs CAP_SYS_ADMIN for the namespace, `ip` and `tc`. The namespace is the test thread's own and ends
//! with it.
#![expect(unsafe_code, reason = "unshare(2) has no safe wrapper here")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene fails")]

mod rig;

use std::process::Command;
use std::time::{Duration, Instant};

use lanrage_relay_uring::{BackendKind, Options, Received, SendFailure, SocketOptions, Tx};
use rig::{Each, Rig, train};

fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        // SAFETY: moves this thread alone to a new network namespace; no memory is involved.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "needs CAP_SYS_ADMIN: {}", std::io::Error::last_os_error());
        ip("link set lo mtu 1500 up");
        test();
    })
    .join()
    .unwrap();
}

fn ip(arguments: &str) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &str) {
    let status = Command::new(program).args(arguments.split_whitespace()).status().unwrap();
    assert!(status.success(), "{program} {arguments}");
}

fn ignore() -> Each<impl FnMut(Received<'_>, &mut Tx<'_>)> {
    Each(|_: Received<'_>, _: &mut Tx<'_>| {})
}

on_both! {
    /// EMSGSIZE: the segments that fit are sent one by one, the others are counted, and the
    /// destination gets single datagrams from then on; other destinations keep their trains.
    fn a_train_too_large_for_the_mtu_is_sent_again_in_pieces(kind: BackendKind) {
        in_a_namespace(move || {
            let mut rig = Rig::new(kind);
            let mut first = Rig::new(kind);
            let mut other = Rig::new(kind);
            let mut large = train(3, 2000);
            large.extend_from_slice(&[5; 500]);
            rig.send(first.locals[0], &large, Some(2000));
            rig.assert_identity();
            let counters = rig.counters.clone();
            assert_eq!(counters.tx_planned.get(), 4);
            assert_eq!(counters.tx_datagrams.get(), 1);
            assert_eq!(counters.tx_failed(SendFailure::MessageSize), 3);
            assert_eq!(counters.gso_resent_trains.get(), 1);
            assert_eq!(counters.gso_barred_destinations.get(), 1);
            assert_eq!(counters.gso_disabled_sockets.get(), 0);
            first.drive(&mut ignore(), |counters| counters.rx_bytes.get() == 500);

            let fits = train(10, 1000);
            rig.send(first.locals[0], &fits, Some(1000));
            rig.send(other.locals[0], &fits, Some(1000));
            rig.assert_identity();
            first.drive(&mut ignore(), |counters| counters.rx_segments.get() == 11);
            other.drive(&mut ignore(), |counters| counters.rx_segments.get() == 10);
            assert_eq!(first.counters.rx_arrivals.get(), 11, "barred");
            assert_eq!(other.counters.rx_arrivals.get(), 1, "not barred");
            assert_eq!(counters.gso_resent_trains.get(), 1, "a barred destination is not tried");
        });
    }

    /// More trains refused in one batch than the queue has room for their segments.
    fn many_refused_trains_in_one_batch(kind: BackendKind) {
        in_a_namespace(move || {
            let options = Options { sends: 64, ..Options::default() };
            let mut rig = Rig::with(kind, &["127.0.0.1:0"], &options, &SocketOptions::default());
            let mut sink = Rig::new(kind);
            let (id, to) = (rig.ids[0], sink.locals[0]);
            let mut refused = train(29, 2000);
            refused.extend_from_slice(&[5; 100]);
            let mut once = Some(());
            let mut handler = rig::AtEnd(|tx: &mut Tx<'_>| {
                if once.take().is_some() {
                    for _ in 0..4 {
                        tx.forward(id, to, &refused, Some(2000));
                        tx.send(id, to, b"between");
                    }
                }
            });
            rig.drive(&mut handler, |counters| counters.tx_planned.get() == 4 * 31);
            assert_eq!(rig.counters.tx_failed(SendFailure::MessageSize), 4 * 29);
            assert_eq!(rig.counters.tx_datagrams.get(), 4 * 2);
            sink.drive(&mut ignore(), |counters| counters.rx_segments.get() == 8);
            assert_eq!(sink.counters.rx_bytes.get(), 4 * 107);
        });
    }

    /// Joined and gathered trains too large for the MTU go again datagram by datagram, in order.
    fn refused_trains_of_several_pieces_go_again(kind: BackendKind) {
        in_a_namespace(move || {
            let (mut rig, mut joined, mut gathered) = (Rig::new(kind), Rig::new(kind), Rig::new(kind));
            let (id, to) = (rig.ids[0], [joined.locals[0], gathered.locals[0]]);
            let (large, rest) = (train(29, 2000), [9; 77]);
            let mut once = Some(());
            let mut handler = rig::AtEnd(|tx: &mut Tx<'_>| {
                if once.take().is_some() {
                    for len in [2000, 2000, 1200] {
                        tx.send(id, to[0], &vec![len as u8; len]);
                    }
                    for _ in 0..3 {
                        tx.forward_gathered(id, to[1], &[b"head", &large, &rest], 2000);
                    }
                }
            });
            rig.drive(&mut handler, |counters| counters.tx_planned.get() == 3 + 3 * 30);
            assert_eq!(rig.counters.tx_failed(SendFailure::MessageSize), 2 + 3 * 29, "{:#?}", rig.counters);
            assert_eq!(rig.counters.tx_datagrams.get(), 1 + 3);
            joined.drive(&mut ignore(), |counters| counters.rx_bytes.get() == 1200);
            gathered.drive(&mut ignore(), |counters| counters.rx_bytes.get() == 3 * 81);
        });
    }

    /// EAGAIN: a device slower than the relay fills the send buffer. A send then fails at once; it
    /// neither waits nor, with io_uring, moves to a worker.
    fn a_full_send_buffer_is_counted_and_never_waited_for(kind: BackendKind) {
        in_a_namespace(move || {
            run("tc", "qdisc add dev lo root tbf rate 8kbit burst 1600 limit 1000000");
            let small = SocketOptions { send_buffer: 8192, ..SocketOptions::default() };
            let mut rig = Rig::with(kind, &["127.0.0.1:0"], &Options::default(), &small);
            let id = rig.ids[0];
            let mut left = 50;
            let mut handler = rig::AtEnd(|tx: &mut Tx<'_>| {
                while left > 0 {
                    left -= 1;
                    // Each longer than the one before, so that they are not joined.
                    tx.send(id, "127.0.0.1:9".parse().unwrap(), &vec![0; 1100 - left]);
                }
            });
            let start = Instant::now();
            rig.drive(&mut handler, |counters| counters.tx_planned.get() == 50);
            assert!(start.elapsed() < Duration::from_secs(1));
            let blocked = rig.counters.tx_failed(SendFailure::WouldBlock);
            assert!((30..50).contains(&blocked), "{:#?}", rig.counters);
            assert_eq!(rig.counters.tx_failed_total(), blocked);
        });
    }
}

/// A veth pair from the test's namespace to another, with the addresses 10.9.0.1 and 10.9.0.2, and
/// the other end's socket.
fn across_a_veth(settings: &str, test: impl FnOnce(std::net::UdpSocket) + Send + 'static) {
    let settings = settings.to_owned();
    in_a_namespace(move || {
        let (tid, settled) = std::sync::mpsc::channel();
        let (go, is_go) = std::sync::mpsc::channel::<()>();
        let (give, socket) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // SAFETY: as above.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            // SAFETY: gettid takes nothing.
            tid.send(unsafe { libc::gettid() }).unwrap();
            is_go.recv().unwrap();
            ip("address add 10.9.0.2/24 dev far");
            ip("link set far up");
            give.send(std::net::UdpSocket::bind("10.9.0.2:7000").unwrap()).unwrap();
        });
        let other = settled.recv().unwrap();
        ip(&format!("link add near type veth peer name far netns {other}"));
        ip("address add 10.9.0.1/24 dev near");
        for setting in settings.split(';').filter(|setting| !setting.is_empty()) {
            run("ethtool", &format!("-K near {setting}"));
        }
        ip("link set near up");
        go.send(()).unwrap();
        test(socket.recv().unwrap());
    });
}

/// Over a device, with and without its help: what the self-test at start does over loopback. Since
/// Linux 6.11 the kernel fills in the checksums of trains that a device cannot (net/ipv4/udp.c).
#[test]
fn trains_pass_a_veth_unspoilt() {
    for settings in ["", "tx-udp-segmentation off", "tx-udp-segmentation off;gso off", "tx off"] {
        across_a_veth(settings, |far| {
            let near = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
            lanrage_relay_uring::gso::self_test::between(&near, &far).unwrap();
        });
    }
}

/// The path's MTU is smaller than the device's: what does not fit fails, whole or cut.
#[test]
fn a_train_that_does_not_fit_fails_the_self_test() {
    across_a_veth("", |far| {
        ip("link set near mtu 600");
        let near = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
        let fault = lanrage_relay_uring::gso::self_test::between(&near, &far).unwrap_err();
        assert!(fault.to_string().contains("refused a train"), "{fault}");
    });
}
