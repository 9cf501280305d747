//! One suite over both back ends, with real sockets on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene fails")]

mod rig;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lanrage_relay_uring::{
    BackendKind, GsoMode, GsoSwitch, Handler, Latencies, Options, Received, SAMPLE_EVERY,
    SendFailure, SocketOptions, Sockets, Tx, bind,
};
use rig::{
    AtEnd, Each, Over, Rig, assert_silent, closed_port, echo, forward_to, peer, peer_at, receive,
    train,
};

fn few_buffers() -> Options {
    Options { buffers: 8, ..Options::default() }
}

fn no_gro() -> SocketOptions {
    SocketOptions { gro: false, ..SocketOptions::default() }
}

on_both! {
    fn echoes(kind: BackendKind) {
        let (mut rig, peer) = (Rig::new(kind), peer());
        for size in [1, 0, 120, 1400, 65_507] {
            let sent = train(1, size);
            let before = rig.counters.rx_arrivals.get();
            peer.send_to(&sent, rig.locals[0]).unwrap();
            rig.drive(&mut echo(), |counters| counters.rx_arrivals.get() > before);
            let (bytes, source) = receive(&peer);
            assert!(bytes == sent, "{size} bytes");
            assert_eq!(source, rig.locals[0]);
        }
        assert_eq!(rig.counters.tx_datagrams.get(), 5);
        assert_eq!(rig.counters.tx_bytes.get(), rig.counters.rx_bytes.get());
    }

    fn echoes_over_ipv6_and_between_families(kind: BackendKind) {
        let mut rig = Rig::with(kind, &["127.0.0.1:0", "[::1]:0"], &Options::default(), &SocketOptions::default());
        let (v4, v6) = (peer(), peer_at("[::1]:0", 10));
        let (v4_address, v6_address) = (v4.local_addr().unwrap(), v6.local_addr().unwrap());
        let ids = rig.ids.clone();
        let mut cross = Each(|arrival: Received<'_>, tx: &mut Tx<'_>| {
            if arrival.socket == ids[0] {
                assert_eq!(arrival.source, v4_address);
                tx.forward(ids[1], v6_address, arrival.bytes, None);
            } else {
                assert_eq!(arrival.source, v6_address);
                tx.forward(ids[0], v4_address, arrival.bytes, None);
            }
        });
        v4.send_to(b"from v4", rig.locals[0]).unwrap();
        v6.send_to(b"from v6", rig.locals[1]).unwrap();
        rig.drive(&mut cross, |counters| counters.rx_arrivals.get() == 2);
        assert_eq!(receive(&v6), (b"from v4".to_vec(), rig.locals[1]));
        assert_eq!(receive(&v4), (b"from v6".to_vec(), rig.locals[0]));
    }

    fn forwards_a_thousand_in_batches(kind: BackendKind) {
        let (mut rig, source, sink) = (Rig::new(kind), peer(), peer());
        for number in 0..1000u32 {
            source.send_to(&number.to_be_bytes(), rig.locals[0]).unwrap();
        }
        rig.drive(&mut forward_to(sink.local_addr().unwrap()), |counters| counters.rx_segments.get() == 1000);
        let numbers: HashSet<_> = (0..1000).map(|_| receive(&sink).0).collect();
        assert_eq!(numbers.len(), 1000);
        assert_eq!(rig.counters.tx_datagrams.get(), 1000);
        assert!(rig.counters.batches.get() < 200, "{:?}", rig.counters.batch_sizes);
        assert_eq!(rig.counters.batch_sizes.buckets().iter().sum::<u64>(), rig.counters.batches.get());
    }

    fn keeps_the_order_of_a_flow(kind: BackendKind) {
        let (mut rig, source, sink) = (Rig::new(kind), peer(), peer());
        for number in 0..500u32 {
            source.send_to(&number.to_be_bytes(), rig.locals[0]).unwrap();
        }
        rig.drive(&mut forward_to(sink.local_addr().unwrap()), |counters| counters.rx_segments.get() == 500);
        for number in 0..500u32 {
            assert_eq!(receive(&sink).0, number.to_be_bytes());
        }
    }

    fn forwards_trains_whole(kind: BackendKind) {
        let (mut source, mut rig, mut sink) = (Rig::new(kind), Rig::new(kind), Rig::new(kind));
        let mut sent = train(40, 1300);
        sent.extend_from_slice(&[7; 100]);
        source.send(rig.locals[0], &sent, Some(1300));
        assert_eq!(source.counters.tx_datagrams.get(), 41);

        let to = sink.locals[0];
        rig.drive(&mut Each(|arrival: Received<'_>, tx: &mut Tx<'_>| {
            assert_eq!((arrival.segment_size, arrival.segments()), (1300, 41));
            // Two runs of one train, as the relay sends it when destinations differ.
            let (first, second) = arrival.bytes.split_at_mut(10 * 1300);
            first[0] = 99;
            tx.forward(arrival.socket, to, first, Some(1300));
            tx.forward(arrival.socket, to, second, Some(1300));
        }), |counters| counters.rx_segments.get() == 41);
        assert_eq!((rig.counters.rx_arrivals.get(), rig.counters.tx_datagrams.get()), (1, 41));
        assert_eq!(rig.counters.train_lengths.buckets()[6], 1, "33 to 64 segments");

        let mut received = Vec::new();
        sink.drive(&mut Each(|arrival: Received<'_>, _: &mut Tx<'_>| {
            assert_eq!(arrival.segment_size, 1300);
            received.extend_from_slice(arrival.bytes);
        }), |counters| counters.rx_segments.get() == 41);
        sent[0] = 99;
        assert!(received == sent);
        assert_eq!(sink.counters.rx_arrivals.get(), 1, "one destination, one train");
    }

    fn splits_trains_with_gso_off_and_resumes_when_on(kind: BackendKind) {
        let gso = GsoSwitch::new(GsoMode::Off);
        let options = Options { gso: gso.clone(), ..Options::default() };
        let mut rig = Rig::with(kind, &["127.0.0.1:0"], &options, &SocketOptions::default());
        let mut sink = Rig::new(kind);
        let sent = train(10, 500);
        rig.send(sink.locals[0], &sent, Some(500));
        assert_eq!(rig.counters.tx_datagrams.get(), 10);
        sink.drive(&mut echo(), |counters| counters.rx_segments.get() == 10);
        assert_eq!(sink.counters.rx_arrivals.get(), 10);

        gso.set(GsoMode::Auto);
        rig.send(sink.locals[0], &sent, Some(500));
        sink.drive(&mut echo(), |counters| counters.rx_segments.get() == 20);
        assert_eq!(sink.counters.rx_arrivals.get(), 11);
        rig.assert_identity();
    }

    /// The kernel takes at most 64 segments, and 65,507 bytes, at once.
    fn cuts_trains_to_what_the_kernel_takes(kind: BackendKind) {
        let (mut rig, mut sink) = (Rig::new(kind), Rig::new(kind));
        rig.send(sink.locals[0], &train(200, 100), Some(100));
        rig.send(sink.locals[0], &train(60, 1400), Some(1400));
        assert_eq!(rig.counters.tx_datagrams.get(), 260);
        assert_eq!(rig.counters.gso_resent_trains.get(), 0);
        sink.drive(&mut Each(|_: Received<'_>, _: &mut Tx<'_>| {}), |counters| counters.rx_segments.get() == 260);
        assert_eq!(sink.counters.rx_arrivals.get(), 4 + 2);
    }

    fn runs_out_of_buffers_and_recovers(kind: BackendKind) {
        let mut rig = Rig::with(kind, &["127.0.0.1:0"], &few_buffers(), &SocketOptions::default());
        let (source, sink) = (peer(), peer());
        for round in 1..=3 {
            for number in 0..500u32 {
                source.send_to(&number.to_be_bytes(), rig.locals[0]).unwrap();
            }
            rig.drive(&mut forward_to(sink.local_addr().unwrap()), |counters| counters.rx_segments.get() == round * 500);
            for number in 0..500u32 {
                assert_eq!(receive(&sink).0, number.to_be_bytes());
            }
        }
        assert_eq!(rig.counters.rx_kernel_drops.get(), 0);
        if kind == BackendKind::Uring {
            assert!(rig.counters.enobufs.get() > 0, "{:#?}", rig.counters);
            assert_eq!(rig.counters.rearms.get(), 0, "counted once, by their cause");
        }
    }

    /// The kernel uses up all buffers in the very call that arms the receive.
    fn opens_over_a_socket_that_is_full_already(kind: BackendKind) {
        let local = "127.0.0.1:0".parse().unwrap();
        let sockets = bind(&[local], 1, &SocketOptions::default()).unwrap().remove(0);
        let to = sockets.locals().next().unwrap().1;
        let source = peer();
        for _ in 0..300 {
            source.send_to(b"early", to).unwrap();
        }
        let mut rig = Rig::over(kind, sockets, &few_buffers());
        rig.drive(&mut Each(|_: Received<'_>, _: &mut Tx<'_>| {}), |counters| counters.rx_segments.get() == 300);
    }

    fn counts_what_the_kernel_dropped(kind: BackendKind) {
        let small = SocketOptions { receive_buffer: 16 * 1024, ..SocketOptions::default() };
        let mut rig = Rig::with(kind, &["127.0.0.1:0"], &Options::default(), &small);
        let source = peer();
        for _ in 0..500 {
            source.send_to(&[0; 200], rig.locals[0]).unwrap();
        }
        let mut ignore = Each(|_: Received<'_>, _: &mut Tx<'_>| {});
        for _ in 0..20 {
            rig.turn(&mut ignore);
        }
        let received = rig.counters.rx_segments.get();
        assert!(received < 500);
        source.send_to(b"the next one tells", rig.locals[0]).unwrap();
        rig.drive(&mut ignore, |counters| counters.rx_segments.get() > received);
        assert_eq!(rig.counters.rx_kernel_drops.get(), 500 - received);
    }

    /// At the second socket, while the first has traffic, too.
    fn a_queue_that_stands_is_shortened_until_it_is_gone(kind: BackendKind) {
        let locals = ["127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
        let megabyte = SocketOptions { receive_buffer: 1 << 20, ..SocketOptions::default() };
        let sockets = bind(&locals, 1, &megabyte).unwrap().remove(0);
        let same = Sockets::adopt(sockets.duplicate().unwrap()).unwrap();
        let options = Options { buffers: 64, ..Options::default() };
        let mut rig = Rig::over(kind, sockets, &options);
        let (id, to) = (rig.ids[1], rig.locals.clone());
        let length = || same.buffer_sizes(id).unwrap().0;
        let full = length();
        if full <= 256 << 10 {
            return; // It is as short as they become.
        }
        let mut ignore = Each(|_: Received<'_>, _: &mut Tx<'_>| {});
        let stand = |rig: &mut Rig| {
            let is_over = AtomicBool::new(false);
            thread::scope(|scope| {
                let _over = Over(&is_over);
                scope.spawn(|| {
                    let source = peer();
                    while !is_over.load(Ordering::Relaxed) {
                        source.send_to(&[0; 100], to[0]).unwrap();
                        (0..8).for_each(|_| _ = source.send_to(&[0; 100], to[1]).unwrap());
                    }
                });
                // Slower than they come.
                let mut slow = Each(|_: Received<'_>, _: &mut Tx<'_>| {
                    let begun = Instant::now();
                    while begun.elapsed() < Duration::from_micros(10) {}
                });
                rig.drive(&mut slow, |_| length() < full);
            });
            assert!(rig.counters.queues_shortened.get() > 0);
        };
        stand(&mut rig);
        rig.drive(&mut ignore, |_| length() == full);
        stand(&mut rig);
        rig.backend.drain(&mut ignore).unwrap();
        assert_eq!(length(), full, "whoever takes the socket over has room for a burst");

        // Who took it over shortened it, and died.
        let mut other = Rig::over(kind, Sockets::adopt(same.duplicate().unwrap()).unwrap(), &options);
        stand(&mut other);
        rig.turn(&mut ignore);
        assert_eq!(length(), full);
    }

    /// The first socket took every buffer, turn after turn.
    fn regression_few_buffers_are_shared_between_busy_sockets(kind: BackendKind) {
        let mut rig = Rig::with(kind, &["127.0.0.1:0", "127.0.0.1:0"], &few_buffers(), &SocketOptions::default());
        let source = peer();
        for _ in 0..1000 {
            rig.locals.iter().for_each(|local| _ = source.send_to(b"busy", local).unwrap());
        }
        let mut by_socket = [0; 2];
        let mut count = Each(|arrival: Received<'_>, _: &mut Tx<'_>| by_socket[arrival.socket.index()] += 1);
        rig.drive(&mut count, |counters| counters.rx_segments.get() >= 400);
        assert!(by_socket.iter().all(|count| *count > 100), "{by_socket:?}");
    }

    fn a_handler_that_drops_all_costs_nothing_later(kind: BackendKind) {
        let mut rig = Rig::with(kind, &["127.0.0.1:0"], &few_buffers(), &SocketOptions::default());
        let peer = peer();
        for round in 1..=50 {
            for _ in 0..20 {
                peer.send_to(b"unwanted", rig.locals[0]).unwrap();
            }
            rig.drive(&mut Each(|_: Received<'_>, _: &mut Tx<'_>| {}), |counters| counters.rx_segments.get() == round * 20);
        }
        assert_eq!(rig.counters.tx_planned.get(), 0);
        peer.send_to(b"wanted", rig.locals[0]).unwrap();
        rig.drive(&mut echo(), |counters| counters.rx_segments.get() == 1001);
        assert_eq!(receive(&peer).0, b"wanted");
        assert_silent(&peer);
    }

    fn one_arrival_to_many_destinations_overflows_the_queue(kind: BackendKind) {
        let options = Options { sends: 64, ..few_buffers() };
        let mut rig = Rig::with(kind, &["127.0.0.1:0"], &options, &SocketOptions::default());
        let (source, sink) = (peer(), peer());
        let to = sink.local_addr().unwrap();
        for _ in 0..5 {
            source.send_to(b"broadcast", rig.locals[0]).unwrap();
        }
        rig.drive(&mut Each(|arrival: Received<'_>, tx: &mut Tx<'_>| {
            for copy in 0..150u8 {
                tx.forward(arrival.socket, to, arrival.bytes, None);
                tx.send(arrival.socket, to, &[copy; 1500]);
            }
        }), |counters| counters.rx_segments.get() == 5);
        assert_eq!(rig.counters.tx_datagrams.get(), 5 * 300);
        for _ in 0..5 {
            for copy in 0..150u8 {
                assert_eq!(receive(&sink).0, b"broadcast");
                assert!(receive(&sink).0 == [copy; 1500]);
            }
        }
    }

    fn failed_sends_are_counted_by_kind_and_hold_up_nobody(kind: BackendKind) {
        let mut rig = Rig::with(kind, &["127.0.0.1:0", "[::1]:0"], &Options::default(), &SocketOptions::default());
        let peer = peer();
        let (good, closed, id) = (peer.local_addr().unwrap(), closed_port(), rig.ids[0]);
        let mut once = Some(());
        let mut handler = AtEnd(|tx: &mut Tx<'_>| {
            if once.take().is_none() {
                return;
            }
            let bad = [
                "127.0.0.1:0",             // EINVAL
                "255.255.255.255:9",       // EACCES: SO_BROADCAST is off
                "[::1]:9",                 // EAFNOSUPPORT from an IPv4 socket
            ];
            for to in bad {
                tx.send(id, to.parse().unwrap(), b"lost");
                tx.send(id, good, to.as_bytes());
            }
            tx.send(id, good, &[0; 65_508]);
            tx.send(id, good, &vec![0; 1 << 20]);
            tx.send(id, closed, b"refused by ICMP, which nobody sees");
            tx.send(id, good, b"last");
        });
        rig.drive(&mut handler, |counters| counters.tx_planned.get() == 10);
        let counters = &rig.counters;
        assert_eq!(counters.tx_failed(SendFailure::Invalid), 2, "{counters:#?}");
        assert_eq!(counters.tx_failed(SendFailure::NotPermitted), 1, "{counters:#?}");
        assert_eq!(counters.tx_failed(SendFailure::MessageSize), 2, "{counters:#?}");
        assert_eq!((counters.tx_failed_total(), counters.tx_datagrams.get()), (5, 5));
        assert_eq!(receive(&peer).0, b"127.0.0.1:0");
        for _ in 0..2 {
            receive(&peer);
        }
        assert_eq!(receive(&peer).0, b"last");

        let before = rig.counters.rx_segments.get();
        peer.send_to(b"still here", rig.locals[0]).unwrap();
        rig.drive(&mut echo(), |counters| counters.rx_segments.get() > before);
        assert_eq!(receive(&peer).0, b"still here");
    }

    /// Loopback drops at the receiver, which is no failure of the sender.
    fn a_full_sink_fails_no_send(kind: BackendKind) {
        let (mut rig, sink) = (Rig::new(kind), peer_at("127.0.0.1:0", 1));
        let (to, id) = (sink.local_addr().unwrap(), rig.ids[0]);
        let mut left = 5000;
        rig.drive(&mut AtEnd(|tx: &mut Tx<'_>| {
            while left > 0 {
                left -= 1;
                tx.send(id, to, &[1; 1000]);
            }
        }), |counters| counters.tx_planned.get() == 5000);
        assert_eq!(rig.counters.tx_failed_total(), 0);
    }

    fn single_datagrams_without_gro(kind: BackendKind) {
        let mut rig = Rig::with(kind, &["127.0.0.1:0"], &Options::default(), &no_gro());
        let mut source = Rig::new(kind);
        source.send(rig.locals[0], &train(20, 300), Some(300));
        rig.drive(&mut Each(|arrival: Received<'_>, _: &mut Tx<'_>| {
            assert_eq!((arrival.bytes.len(), arrival.segment_size, arrival.segments()), (300, 300, 1));
        }), |counters| counters.rx_segments.get() == 20);
        assert_eq!(rig.counters.rx_arrivals.get(), 20);
    }

    fn every_arrival_is_announced_before_the_first_is_handled(kind: BackendKind) {
        #[derive(Default)]
        struct Announced { waiting: Vec<Vec<u8>>, handled: usize, ends: usize }
        impl Handler for Announced {
            fn prefetch(&mut self, bytes: &[u8]) {
                self.waiting.push(bytes.to_vec());
            }
            fn receive(&mut self, arrival: Received<'_>, _: &mut Tx<'_>) {
                assert_eq!(self.waiting.remove(0), arrival.bytes);
                self.handled += 1;
            }
            fn batch_end(&mut self, _: &mut Tx<'_>) {
                assert!(self.waiting.is_empty());
                self.ends += 1;
            }
        }
        let (mut rig, peer) = (Rig::new(kind), peer());
        for number in 0..100u8 {
            peer.send_to(&[number], rig.locals[0]).unwrap();
        }
        let mut handler = Announced::default();
        rig.drive(&mut handler, |counters| counters.rx_segments.get() == 100);
        assert_eq!(handler.handled, 100);
        assert!(handler.ends > 0);
    }

    fn a_wake_up_ends_the_wait(kind: BackendKind) {
        let mut rig = Rig::new(kind);
        let mut ends = 0;
        for round in 1..=3 {
            let waker = rig.backend.waker();
            let thread = thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                waker.wake();
                waker.wake();
            });
            let start = Instant::now();
            while rig.counters.wakeups.get() < round {
                rig.backend.turn(&mut AtEnd(|_: &mut Tx<'_>| ends += 1), Duration::from_secs(20)).unwrap();
            }
            assert!(start.elapsed() < Duration::from_secs(5));
            thread.join().unwrap();
            // The second wake may come after the first was seen.
            rig.backend.turn(&mut AtEnd(|_: &mut Tx<'_>| ends += 1), Duration::ZERO).unwrap();
            if rig.counters.wakeups.get() > round {
                return;
            }
        }
        assert!(ends >= 3);
    }

    fn a_wake_up_before_the_wait_counts(kind: BackendKind) {
        let mut rig = Rig::new(kind);
        rig.backend.waker().wake();
        let start = Instant::now();
        rig.backend.turn(&mut echo(), Duration::from_secs(20)).unwrap();
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(rig.counters.wakeups.get(), 1);
        let start = Instant::now();
        rig.backend.turn(&mut echo(), Duration::from_millis(50)).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(49), "a wake-up is forgotten once seen");
    }

    fn waits_as_long_as_told(kind: BackendKind) {
        let mut rig = Rig::new(kind);
        let mut ends = 0;
        for timeout in [0, 5, 50] {
            let timeout = Duration::from_millis(timeout);
            let start = Instant::now();
            rig.backend.turn(&mut AtEnd(|_: &mut Tx<'_>| ends += 1), timeout).unwrap();
            let waited = start.elapsed();
            assert!(waited >= timeout, "{waited:?} of {timeout:?}");
            assert!(waited < timeout + Duration::from_millis(40), "{waited:?} of {timeout:?}");
        }
        assert_eq!(ends, 3, "a batch ends each turn");
    }

    /// What waited in the socket is as old as it is, by the kernel's stamp.
    fn the_age_of_the_queue_and_the_latency_are_sampled(kind: BackendKind) {
        let (mut rig, peer) = (Rig::new(kind), peer());
        for batch in 1..=4 * u64::from(SAMPLE_EVERY) {
            peer.send_to(b"waits", rig.locals[0]).unwrap();
            thread::sleep(Duration::from_millis(3));
            while rig.counters.rx_segments.get() < batch {
                rig.turn(&mut echo());
            }
        }
        let (age, latency) = (&rig.counters.queue_age, &rig.counters.forward_latency);
        let count = |latencies: &Latencies| latencies.buckets().iter().sum::<u64>();
        assert!((1..=8).contains(&count(age)), "{age:?}");
        assert_eq!(count(age), count(latency));
        // Bounds of 2,048 and less were too short.
        assert_eq!(age.buckets()[..11].iter().sum::<u64>(), 0, "{age:?}");
        assert!(age.sum_us() >= 3000 * count(age), "{age:?}");
    }

    fn sends_queued_at_the_end_go_out_without_a_new_arrival(kind: BackendKind) {
        let (mut rig, peer) = (Rig::new(kind), peer());
        let (to, id) = (peer.local_addr().unwrap(), rig.ids[0]);
        let mut once = Some(());
        let mut handler = AtEnd(|tx: &mut Tx<'_>| {
            if once.take().is_some() {
                tx.send(id, to, b"late");
            }
        });
        rig.backend.turn(&mut handler, Duration::ZERO).unwrap();
        rig.backend.turn(&mut handler, Duration::ZERO).unwrap();
        assert_eq!(receive(&peer).0, b"late");
    }
}
