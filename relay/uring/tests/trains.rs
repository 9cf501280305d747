//! Trains made of several pieces of memory: gathered by the handler, or joined from single datagrams.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene fails")]

mod rig;

use std::net::SocketAddr;

use lanrage_relay_uring::{BackendKind, GsoMode, GsoSwitch, Options, Received, SocketOptions, Tx};
use rig::{AtEnd, Each, Rig, closed_port, forward_to, peer, peer_at, receive, train};

fn with_gso(kind: BackendKind, mode: GsoMode) -> Rig {
    let options = Options { gso: GsoSwitch::new(mode), ..Options::default() };
    Rig::with(kind, &["127.0.0.1:0"], &options, &SocketOptions::default())
}

/// Takes what arrives at `sink`: lengths of trains, and all bytes.
fn take(sink: &mut Rig, segments: u64) -> (Vec<usize>, Vec<u8>) {
    let (mut trains, mut bytes) = (Vec::new(), Vec::new());
    sink.drive(
        &mut Each(|arrival: Received<'_>, _: &mut Tx<'_>| {
            trains.push(arrival.segments());
            bytes.extend_from_slice(arrival.bytes);
        }),
        |counters| counters.rx_segments.get() >= segments,
    );
    (trains, bytes)
}

/// Sends what `what` queues, in one batch.
fn batch(rig: &mut Rig, what: impl FnOnce(&mut Tx<'_>)) {
    let mut what = Some(what);
    let mut handler = AtEnd(|tx: &mut Tx<'_>| {
        if let Some(what) = what.take() {
            what(tx);
        }
    });
    for _ in 0..2 {
        rig.backend.turn(&mut handler, std::time::Duration::ZERO).unwrap();
    }
    rig.assert_identity();
}

on_both! {
    /// As a relay does that puts another header before each segment of a train.
    fn each_segment_gets_another_header(kind: BackendKind) {
        for mode in [GsoMode::Auto, GsoMode::Off] {
            let (mut source, mut rig, mut sink) = (Rig::new(kind), with_gso(kind, mode), Rig::new(kind));
            let mut sent = train(40, 1300);
            sent.extend_from_slice(&[7; 100]);
            source.send(rig.locals[0], &sent, Some(1300));
            let to = sink.locals[0];
            let mut expected = Vec::new();
            rig.drive(&mut Each(|arrival: Received<'_>, tx: &mut Tx<'_>| {
                let headers: Vec<[u8; 40]> = (0..41).map(|at| [at; 40]).collect();
                let mut pieces: Vec<&[u8]> = Vec::new();
                for (segment, header) in arrival.bytes.chunks(1300).zip(&headers) {
                    pieces.extend([header.as_slice(), &segment[16..]]);
                }
                tx.forward_gathered(arrival.socket, to, &pieces, 1324);
                expected = pieces.concat();
            }), |counters| counters.rx_segments.get() == 41);
            assert_eq!(rig.counters.tx_datagrams.get(), 41);
            assert_eq!(rig.counters.tx_bytes.get(), expected.len() as u64);
            let (trains, bytes) = take(&mut sink, 41);
            assert!(bytes == expected, "{mode:?}");
            let whole = if mode == GsoMode::Auto { vec![41] } else { vec![1; 41] };
            assert_eq!(trains, whole);
        }
    }

    /// Pieces and datagrams need not end together, and a train may be longer than the kernel takes.
    fn pieces_of_any_length_are_cut_into_datagrams(kind: BackendKind) {
        for (lens, size) in [
            (vec![10, 0, 3, 700, 1, 1, 1200, 85], 500),
            (vec![1; 300], 50),
            (vec![1000; 70], 999),
            (vec![100; 150], 100),
            (vec![65_000, 65_000], 1400),
            (vec![20, 30], 60),
            (vec![0], 10),
            (vec![], 10),
        ] {
            let (mut rig, mut sink) = (Rig::new(kind), Rig::new(kind));
            let (id, to) = (rig.ids[0], sink.locals[0]);
            let pieces: Vec<Vec<u8>> = lens.iter().map(|len| train(1, *len)).collect();
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let expected = pieces.concat();
            batch(&mut rig, |tx| tx.forward_gathered(id, to, &pieces, size));
            let segments = expected.len().div_ceil(size.into()).max(1) as u64;
            assert_eq!(rig.counters.tx_datagrams.get(), segments, "{lens:?} by {size}");
            assert_eq!(rig.counters.gso_resent_trains.get(), 0);
            assert!(take(&mut sink, segments).1 == expected, "{lens:?} by {size}");
        }
    }

    fn equal_datagrams_to_one_destination_leave_as_a_train(kind: BackendKind) {
        let (mut rig, mut sink, mut other) = (Rig::new(kind), Rig::new(kind), Rig::new(kind));
        let (id, to, elsewhere) = (rig.ids[0], sink.locals[0], other.locals[0]);
        let lens = [100, 100, 100, 60, 100, 100, 120, 120];
        batch(&mut rig, |tx| {
            for (number, len) in lens.into_iter().enumerate() {
                tx.send(id, to, &vec![number as u8; len]);
                tx.send(id, elsewhere, &vec![number as u8; number + 1]);
            }
        });
        let (trains, bytes) = take(&mut sink, 8);
        assert_eq!(trains, [4, 2, 2], "a shorter one ends a train, a longer one begins the next");
        let expected: Vec<u8> =
            lens.into_iter().enumerate().flat_map(|(number, len)| vec![number as u8; len]).collect();
        assert!(bytes == expected, "in order");
        assert_eq!(take(&mut other, 8).0, [1; 8]);
        assert_eq!((rig.counters.tx_joined.get(), rig.counters.tx_datagrams.get()), (8, 16));
    }

    fn arrivals_from_many_sources_are_joined(kind: BackendKind) {
        let (mut rig, mut sink) = (Rig::new(kind), Rig::new(kind));
        let sources: Vec<_> = (0..100).map(|_| peer_at("127.0.0.1:0", 1)).collect();
        for (number, source) in sources.iter().enumerate() {
            source.send_to(&[number as u8; 120], rig.locals[0]).unwrap();
        }
        rig.drive(&mut forward_to(sink.locals[0]), |counters| counters.rx_segments.get() == 100);
        let (trains, bytes) = take(&mut sink, 100);
        assert!(trains.iter().all(|segments| *segments <= 64), "{trains:?}");
        assert!(trains.len() <= 4, "{trains:?}");
        assert!(bytes == (0..100).flat_map(|number| [number; 120]).collect::<Vec<u8>>());
    }

    /// At most 64 segments and 65,507 bytes, trains and single datagrams mixed.
    fn joined_trains_are_within_what_the_kernel_takes(kind: BackendKind) {
        let (mut rig, mut sink) = (Rig::new(kind), Rig::new(kind));
        let (id, to) = (rig.ids[0], sink.locals[0]);
        batch(&mut rig, |tx| {
            for _ in 0..150 {
                tx.send(id, to, &[1; 30]);
            }
            for _ in 0..60 {
                tx.send(id, to, &[2; 1400]);
            }
            tx.send(id, to, b"");
            tx.send(id, to, b"");
            for _ in 0..3 {
                tx.forward(id, to, &[3; 2500], Some(500));
                tx.send(id, to, &[3; 500]);
            }
            tx.send(id, to, &[3; 20]);
            tx.forward(id, to, &[4; 700], Some(500));
            tx.forward(id, to, &[4; 500], None);
        });
        let sent = 150 + 60 + 2 + 18 + 1 + 2 + 1;
        assert_eq!(rig.counters.tx_datagrams.get(), sent);
        assert_eq!(rig.counters.gso_resent_trains.get(), 0);
        assert_eq!(take(&mut sink, sent).0, [64, 64, 22, 46, 14, 1, 1, 19, 2, 1]);
    }

    fn nothing_is_joined_with_gso_off(kind: BackendKind) {
        let (mut rig, mut sink) = (with_gso(kind, GsoMode::Off), Rig::new(kind));
        let (id, to) = (rig.ids[0], sink.locals[0]);
        batch(&mut rig, |tx| (0..20).for_each(|_| tx.send(id, to, &[1; 30])));
        assert_eq!(take(&mut sink, 20).0, [1; 20]);
        assert_eq!(rig.counters.tx_joined.get(), 0);
    }

    /// A flush in the middle of a batch ends all trains: what was handed over is not changed.
    fn a_flush_ends_the_trains(kind: BackendKind) {
        let options = Options { sends: 256, ..Options::default() };
        let mut rig = Rig::with(kind, &["127.0.0.1:0"], &options, &SocketOptions::default());
        let sink = peer();
        let (id, to) = (rig.ids[0], sink.local_addr().unwrap());
        batch(&mut rig, |tx| {
            for number in 0..500u16 {
                tx.send(id, to, &number.to_be_bytes());
            }
        });
        assert_eq!(rig.counters.tx_datagrams.get(), 500);
        for number in 0..500u16 {
            assert_eq!(receive(&sink).0, number.to_be_bytes());
        }
    }

    /// The refusal of a joined train that never can be sent: each datagram fails by itself.
    fn a_joined_train_that_fails_is_counted_by_datagrams(kind: BackendKind) {
        let mut rig = Rig::new(kind);
        let id = rig.ids[0];
        let bad: SocketAddr = "127.0.0.1:0".parse().unwrap();
        batch(&mut rig, |tx| {
            for _ in 0..5 {
                tx.send(id, bad, &[1; 30]);
                tx.send(id, closed_port(), &[1; 30]);
            }
        });
        assert_eq!((rig.counters.tx_failed_total(), rig.counters.tx_datagrams.get()), (5, 5));
        assert_eq!(rig.counters.gso_resent_trains.get(), 1);
    }
}
