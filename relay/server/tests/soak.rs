//! Half an hour at half load: memory, descriptors, threads and accounts stay flat.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod tls;

use std::thread;
use std::time::{Duration, Instant};

use common::namespace::in_a_namespace;
use common::traffic::{Flow, one, skew};
use common::vitals::{Vitals, is_soak};
use common::{Client, Relay, eventually, prepare};
use lanrage_proto::frame::bind::{Lease, Refusal};
use lanrage_proto::frame::control::Message;
use lanrage_proto::ids::{Destination, SessionId};
use tls::Stream;

/// In two parties, with five flows, one a broadcast to three: some 18,000 datagrams a second in and
/// 22,000 out, about half of what two cores carry beside both ends.
const MEMBERS: u8 = 8;
/// How often, in seconds, a drain begins.
const DRAIN_EVERY: u64 = 10;
/// What may be touched for the first time after a quarter of the time: see `malformed.rs`.
const RESIDENT_GROWTH_KIB: u64 = 16 << 10;
/// Over 22 minutes: a leak of a byte a second a lease would be seen, or one of 64 B a bind.
const RESIDENT_GROWTH_SOAK_KIB: u64 = 1 << 10;

/// Binds, moves and gives back: `true` if it was bound, `false` if the relay drains.
fn come_and_go(client: &mut Client) -> bool {
    let lease = match client.try_bind() {
        Ok(lease) => lease,
        Err(reason) => {
            assert_eq!(reason, Refusal::Draining);
            return false;
        }
    };
    assert!(client.probe(&lease));
    let release = Message::Release.seal(&lease.key_to_relay, lease.handle, 3);
    client.move_away();
    let Some(Message::RebindChallenge(cookie)) = client.control(&lease, Message::Rebind, 1) else {
        panic!("no challenge");
    };
    let rebound = client.control(&lease, Message::RebindAnswer(cookie), 2);
    assert_eq!(rebound, Some(Message::Rebound(client.socket.local_addr().unwrap())));
    assert!(client.probe(&lease));
    client.socket.send(&release).unwrap();
    true
}

#[test]
fn half_an_hour_leaves_nothing_behind() {
    in_a_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let mut relay =
            Relay::spawn(dir.path(), &["--leases", "1024", "--stream-listen", "127.0.0.1:443"]);
        relay.started.streams = vec!["127.0.0.1:443".parse().unwrap()];
        let mut clients: Vec<_> =
            (1..=MEMBERS).map(|member| Client::new(relay.ipv4(), member)).collect();
        // A broadcast reaches three: a lease may have 10,000 copies a second.
        clients[4..].iter_mut().for_each(|client| client.session = SessionId(0xb0a));
        let leases: Vec<Lease> = clients.iter_mut().map(Client::bind).collect();
        for (client, lease) in clients.iter().zip(&leases) {
            assert!(client.probe(lease));
        }
        let mut stays = Stream::connect(relay.started.streams[0], dir.path(), 50);
        let stays_by = stays.bind();
        assert!(stays.probe(&stays_by));
        let to_sinks = |from: usize, to: Destination, sinks: &[usize]| {
            let sinks: Vec<_> = sinks.iter().map(|at| &clients[*at]).collect();
            Flow::start(&clients[from], &leases[from], to, &sinks)
        };
        let flows = [
            to_sinks(0, one(2), &[1]),
            to_sinks(1, one(1), &[0]),
            to_sinks(2, one(4), &[3]),
            to_sinks(3, one(3), &[2]),
            to_sinks(4, Destination::Everyone, &[5]),
        ];
        let mut guest = Client::new(relay.ipv4(), 60);
        guest.session = SessionId(0xdef);

        let seconds = if is_soak() { 1_800 } else { 20 };
        let begun = Instant::now();
        let mut samples: Vec<Vitals> = Vec::new();
        let mut bound = 0;
        for second in 1..=seconds {
            match second % DRAIN_EVERY {
                4 => relay.ctl(dir.path(), &["drain", "--deadline", "600"]),
                6 => relay.ctl(dir.path(), &["undrain"]),
                _ => {}
            }
            let is_drained = (4..6).contains(&(second % DRAIN_EVERY));
            for _ in 0..10 {
                assert_eq!(come_and_go(&mut guest), !is_drained, "second {second}");
                bound += u64::from(!is_drained);
                thread::sleep(Duration::from_millis(20));
            }
            if !is_drained {
                let mut passes = Stream::connect(relay.started.streams[0], dir.path(), 51);
                passes.stamp = second;
                let lease = passes.bind();
                assert!(passes.probe(&lease));
            }
            // Who only receives has to say that it is there.
            for (client, lease) in clients.iter().zip(&leases) {
                let frame = client.frame(lease, Destination::One(client.member), b"here");
                client.socket.send(&frame).unwrap();
            }
            assert!(is_there(&mut stays, &stays_by), "the stream in second {second}");
            samples.push(relay.vitals());
            let binder = relay.page()["lanrage_relay_accounting_skew{part=\"binder\"}"];
            assert_eq!(binder, 0.0, "second {second}");
            let until = begun + Duration::from_secs(second);
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        let flown: u64 = flows.into_iter().map(Flow::finish).sum();
        eventually("skew 0", || skew(&relay.page()) == 0.0);
        let (warm, last) = (samples[samples.len() / 4], samples[samples.len() - 1]);
        println!("{flown} datagrams, {bound} binds, {seconds} s: {warm:?}, then {last:?}");
        let growth = last.resident_kib.saturating_sub(warm.resident_kib);
        let most = if is_soak() { RESIDENT_GROWTH_SOAK_KIB } else { RESIDENT_GROWTH_KIB };
        assert!(growth <= most, "{growth} KiB more");
        assert!(samples.iter().all(|sample| sample.threads == warm.threads), "threads");
        // The stream of a second before may not have ended yet.
        let descriptors = samples.iter().map(|sample| sample.descriptors);
        let (fewest, most) = (descriptors.clone().min().unwrap(), descriptors.max().unwrap());
        assert!(most - fewest <= 6, "from {fewest} to {most} descriptors");
        relay.stop();
    });
}

/// Beside the broadcasts of others, which it gets as well, and MOVING.
fn is_there(stream: &mut Stream, lease: &Lease) -> bool {
    stream.send(&stream.frame(lease, one(50), b"probe"));
    std::iter::from_fn(|| stream.receive()).any(|got| got.ends_with(b"probe"))
}
