//! What the core spends on a frame that goes from relay to relay, at each of them, and on a forged
//! one: `cargo run --release -p lanrage-relay-core --example mesh_cost`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::hint::black_box;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lanrage_proto::frame::data::Sent;
use lanrage_proto::frame::mesh::Moment;
use lanrage_proto::{Destination, Handle, Member, PoolId, RelayId, TunnelKey};
use lanrage_relay_core::mesh::{Other, Roster};
use lanrage_relay_core::{Classes, Shard, Stun, Verdict, runs};
use lanrage_relay_table::{self as table, Capacity, Endpoint, LocalId, NewLease, SessionId, Tag};
use x25519_dalek::{PublicKey, StaticSecret};

const RELAYS: [u16; 2] = [1, 2];
/// Without limits.
const RATE_CLASS: u8 = 2;
const PAYLOAD: usize = 104;
const SEGMENTS: usize = 44;
const TRAINS: usize = 20_000;

fn main() {
    let mut here = relay(0);
    let mut there = relay(1);
    let sent = Sent::new(
        RelayId(RELAYS[1]),
        Destination::One(Member::new(2).unwrap()),
        Member::new(1).unwrap(),
        Handle(here.1),
        lanrage_proto::Tag(7),
    );
    let frame = [&sent.encode()[..], &[9; PAYLOAD]].concat();
    for segments in [1, SEGMENTS] {
        let rounds = TRAINS * SEGMENTS / segments;
        let train = frame.repeat(segments);
        let (mut out, mut in_, mut forged) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for _ in 0..rounds {
            let mut run = train.clone();
            out += pass(&mut here.0, &mut run, frame.len(), endpoint(1));
            let headers = here.0.mesh_headers().iter().zip(run.chunks(frame.len()));
            let crossing: Vec<u8> = headers
                .flat_map(|(header, segment)| [&header[..], &segment[16..]].concat())
                .collect();
            let mut bad = crossing.clone();
            bad.chunks_mut(frame.len() + 16).for_each(|frame| frame[31] ^= 1);
            forged += pass(&mut there.0, &mut bad, frame.len() + 16, endpoint(9));
            in_ += pass(&mut there.0, &mut crossing.clone(), frame.len() + 16, endpoint(9));
        }
        let each = |time: Duration| time.as_nanos() as f64 / (rounds * segments) as f64;
        println!(
            "{segments:>2} a train: ns a frame: {:.0} out, {:.0} in, {:.0} forged",
            each(out),
            each(in_),
            each(forged)
        );
    }
    assert_eq!(there.0.counters().from_relay as usize, 2 * TRAINS * SEGMENTS);
}

fn pass(shard: &mut Shard, train: &mut [u8], size: usize, from: Endpoint) -> Duration {
    let from = from.remote();
    shard.begin_pass(1_000);
    let start = Instant::now();
    for run in runs(train, size) {
        let verdict: Verdict = shard.handle_run(run, size, from);
        black_box(verdict);
    }
    start.elapsed()
}

fn endpoint(number: u16) -> Endpoint {
    Endpoint { ip: Ipv6Addr::LOCALHOST, port: number, local: LocalId(0) }
}

/// A relay with the lease of the member of its own number, and that lease's handle.
fn relay(at: usize) -> (Shard, u32) {
    let (mut writer, reader) = table::new(Capacity::for_leases(64)).unwrap();
    let new = NewLease {
        session: SessionId(5),
        member: table::Member::new(RELAYS[at] as u8).unwrap(),
        endpoint: endpoint(RELAYS[at]),
        tag: Tag(7),
        rate_class: RATE_CLASS,
    };
    let handle = writer.insert_pending(&new, 0, 0).unwrap().handle;
    writer.activate(handle).unwrap();
    let private = |number: u16| [number as u8; 32];
    let us = RelayId(RELAYS[at]);
    let mut roster = Roster::new(us, PoolId(1), &private(us.0).into());
    roster.set_others(RELAYS.map(|number| Other {
        relay: RelayId(number),
        key: TunnelKey(PublicKey::from(&StaticSecret::from(private(number))).to_bytes()),
        to: endpoint(100 + number),
    }));
    let mut shard = Shard::new(us, reader, Classes::default(), Stun::Ignore);
    shard.join_mesh(0);
    shard.set_peers(Arc::new(roster.peers(Moment::new(1_800_000_000_000_000_000))));
    (shard, handle.to_bits())
}
