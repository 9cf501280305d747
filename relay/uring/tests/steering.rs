//! Who gets what, by the kernel's own decision.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene fails")]

mod rig;

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};

use lanrage_relay_uring::{
    BackendKind, DataFrame, Options, Received, SocketOptions, Spread, Steering, Tx, bind,
};
use rig::{Each, Rig, echo, peer_at, receive};

const FRAME: DataFrame = DataFrame { first_byte: 0xf1, len_min: 16, flow_at: 8 };
const SHARDS: usize = 2;

/// Shards, and the control set last.
struct Steered {
    rigs: Vec<Rig>,
    locals: Vec<SocketAddr>,
}

impl Steered {
    fn new(kind: BackendKind, spread: Spread, options: &SocketOptions) -> Self {
        let locals = ["127.0.0.1:0", "[::1]:0"].map(|local| local.parse().unwrap());
        let sets = bind(&locals, SHARDS + 1, options).unwrap();
        Steering::new(SHARDS, &[FRAME], spread).attach(&sets).unwrap();
        let rigs: Vec<_> =
            sets.into_iter().map(|set| Rig::over(kind, set, &Options::default())).collect();
        Self { locals: rigs[0].locals.clone(), rigs }
    }

    /// Turns all until nothing comes any more; by payload, the set it came to.
    fn sort(&mut self) -> HashMap<Vec<u8>, usize> {
        let mut seen = HashMap::new();
        for (set, rig) in self.rigs.iter_mut().enumerate() {
            let mut handler = Each(|arrival: Received<'_>, _: &mut Tx<'_>| {
                for segment in arrival.bytes.chunks(arrival.segment_size.max(1)) {
                    seen.insert(segment.to_vec(), set);
                }
                if arrival.bytes.is_empty() {
                    seen.insert(Vec::new(), set);
                }
            });
            let mut before = u64::MAX;
            while rig.counters.rx_segments.get() != before {
                before = rig.counters.rx_segments.get();
                rig.turn(&mut handler);
            }
        }
        seen
    }

    fn peers(&self) -> [(UdpSocket, SocketAddr); 2] {
        [(peer_at("127.0.0.1:0", 100), self.locals[0]), (peer_at("[::1]:0", 100), self.locals[1])]
    }
}

fn frame(handle: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0xf1; len];
    frame[8..12].copy_from_slice(&handle.to_be_bytes());
    frame
}

on_both! {
    fn data_goes_to_its_shard_and_all_else_to_the_control_set(kind: BackendKind) {
        let mut steered = Steered::new(kind, Spread::Flow, &SocketOptions::default());
        for (peer, to) in steered.peers() {
            for handle in 0..20 {
                peer.send_to(&frame(handle, 16 + handle as usize), to).unwrap();
            }
            let short = frame(3, 15);
            let others: [&[u8]; 6] = [&[0xf0; 256], &[0xf7; 60], &[0; 20], &short, &[0xf1], b""];
            for other in others {
                peer.send_to(other, to).unwrap();
            }
            let seen = steered.sort();
            for handle in 0..20 {
                let set = seen[&frame(handle, 16 + handle as usize)];
                assert_eq!(set, handle as usize % SHARDS, "handle {handle} to {to}");
            }
            for other in others {
                assert_eq!(seen[other], SHARDS, "{other:x?} to {to}");
            }
            assert_eq!(seen.len(), 26);
        }
    }

    /// From many ports: a member whose address changes stays with its shard.
    fn a_flow_stays_on_its_shard_wherever_it_comes_from(kind: BackendKind) {
        let mut steered = Steered::new(kind, Spread::Flow, &SocketOptions::default());
        for number in 0..50 {
            for (peer, to) in steered.peers() {
                peer.send_to(&frame(7, 100 + number), to).unwrap();
            }
        }
        assert!(steered.sort().values().all(|set| *set == 7 % SHARDS));
        assert_eq!(steered.rigs[1].counters.rx_segments.get(), 100);
    }

    fn by_cpu_every_frame_has_a_shard(kind: BackendKind) {
        let mut steered = Steered::new(kind, Spread::Cpu, &SocketOptions::default());
        for (peer, to) in steered.peers() {
            for handle in 0..50 {
                peer.send_to(&frame(handle, 100), to).unwrap();
            }
            peer.send_to(&[0xf0; 256], to).unwrap();
        }
        steered.sort();
        let received: Vec<_> =
            steered.rigs.iter().map(|rig| rig.counters.rx_segments.get()).collect();
        assert_eq!(received[0] + received[1], 100, "{received:?}");
        assert_eq!(received[2], 2);
    }

    /// The control set's socket overflows, unread; no data frame is lost beside it.
    fn a_flood_of_control_frames_loses_no_data(kind: BackendKind) {
        let small = SocketOptions { receive_buffer: 32 * 1024, ..SocketOptions::default() };
        let mut steered = Steered::new(kind, Spread::Flow, &small);
        let control = steered.rigs.pop().unwrap();
        for round in 0..20 {
            for (peer, to) in steered.peers() {
                for handle in 0..4 {
                    peer.send_to(&frame(handle, 100), to).unwrap();
                    for _ in 0..50 {
                        peer.send_to(&[0xf0; 256], to).unwrap();
                    }
                }
                for rig in &mut steered.rigs {
                    let before = rig.counters.rx_segments.get();
                    rig.drive(&mut echo(), |counters| counters.rx_segments.get() == before + 2);
                }
                for _ in 0..4 {
                    let (bytes, from) = receive(&peer);
                    assert_eq!((bytes.len(), from), (100, to), "round {round}");
                }
            }
        }
        for rig in &steered.rigs {
            assert_eq!(rig.counters.rx_segments.get(), 20 * 2 * 2);
            assert_eq!(rig.counters.rx_kernel_drops.get(), 0);
        }
        steered.rigs.push(control);
        steered.sort();
        for (peer, to) in steered.peers() {
            peer.send_to(&[0xf0; 256], to).unwrap();
        }
        steered.sort();
        let control = &steered.rigs[SHARDS].counters;
        assert!(control.rx_kernel_drops.get() > 1000, "the flood was one: {control:#?}");
    }
}

/// The smallest group there is.
#[test]
fn a_group_of_one_shard_is_steered_too() {
    let sets = bind(&["127.0.0.1:0".parse().unwrap()], 2, &SocketOptions::default()).unwrap();
    Steering::new(1, &[FRAME], Spread::Flow).attach(&sets).unwrap();
    let mut rigs: Vec<_> = sets
        .into_iter()
        .map(|set| Rig::over(BackendKind::Mmsg, set, &Options::default()))
        .collect();
    for handle in 0..10 {
        let peer = peer_at("127.0.0.1:0", 10);
        peer.send_to(&frame(handle, 50), rigs[0].locals[0]).unwrap();
        peer.send_to(&[0xf0; 256], rigs[0].locals[0]).unwrap();
    }
    for rig in &mut rigs {
        rig.drive(&mut echo(), |counters| counters.rx_segments.get() == 10);
    }
}
