//! Floods beside players' traffic: what players lose, which leases end, and what the relay grows by.
//!
//! The flood comes from addresses that have no lease. Those of BIND carry cookies that the relay gave
//! their senders: an attacker that forges no address. A cookie holds for 90 to 180 s; in the whole run
//! the rest of the flood carries cookies of the past.

use std::net::{SocketAddrV4, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lanrage_proto::datagram::first_byte;
use lanrage_proto::frame::bind::Bind;
use lanrage_proto::frame::challenge::Challenge;
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::frame::{Nonce, VERSION};

use super::{Setting, relay, start};
use crate::contestant::relay::random;
use crate::frame::{HEADERS_LEN, head};
use crate::generator::{Record, Stream};
use crate::population::Population;
use crate::results::{Bound, Figure};
use crate::round::{Stage, WARM_UP};
use crate::topology::Topology;
use crate::workload::Workload;

const PLAYERS: u32 = 1000;
/// Of the capacity: what players send, and the flood.
const PLAYERS_PART: f64 = 0.05;
const FLOOD_PART: f64 = 0.5;
/// Addresses that the flood comes from, each in a /24 of its own.
const SOURCES: u32 = 2048;
/// What is on its way has arrived.
const SETTLE: Duration = Duration::from_millis(200);
const GROWTH_MAX_MIB: f64 = 1.0;

#[derive(Debug, Clone, Copy)]
enum Flood {
    Hello,
    Bind,
    Junk,
}

pub(super) fn measure(
    setting: &Setting<'_>,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (flood, name) in [(Flood::Hello, "hello"), (Flood::Bind, "bind"), (Flood::Junk, "junk")] {
        figures.extend(flood.measure(name, setting, tell)?);
    }
    Ok(figures)
}

impl Flood {
    fn measure(
        self,
        name: &str,
        setting: &Setting<'_>,
        tell: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Vec<Figure>> {
        let topology = setting.topology;
        let workload = Workload::sparse(PLAYERS);
        let running = start(setting, &workload)?;
        let relay = relay(&running)?;
        let mut streams = workload.streams(topology.road(), &running.prefixes);
        streams.push(self.stream(topology)?);
        let stage = Stage::of_streams(topology, &running, &workload, &streams)?;
        let (players, flood) = (PLAYERS_PART * setting.capacity, FLOOD_PART * setting.capacity);
        let active = "lanrage_relay_leases{state=\"active\"}";
        let (sent, came, leases, memory, flooded) = stage.while_sending(|| {
            let counts = || -> anyhow::Result<[u64; 3]> {
                stage.generator.set_rate(&[0.0, flood])?;
                thread::sleep(SETTLE);
                let sent = stage.generator.sent()?;
                Ok([sent[0], stage.sink.read()?[0].packets, sent[1]])
            };
            stage.generator.set_rate(&[players, flood])?;
            // Everything that grows to its limit has.
            thread::sleep(2 * WARM_UP);
            let memory = relay.resident()?;
            let before = counts()?;
            let begin = Instant::now();
            stage.generator.set_rate(&[players, flood])?;
            thread::sleep(setting.extent.flood);
            let played = begin.elapsed().as_secs_f64();
            let after = counts()?;
            let flooded = begin.elapsed().as_secs_f64();
            let leases = f64::from(PLAYERS) - relay.scrape()?.sum(active)?;
            let memory = relay.resident()? as f64 - memory as f64;
            let of = |at: usize| (after[at] - before[at]) as f64;
            setting.extent.ensure_pace(of(0) / played, players)?;
            setting.extent.ensure_pace(of(2) / flooded, flood)?;
            Ok((of(0), of(1), leases, memory / f64::from(1 << 20), of(2)))
        })?;
        let loss = 1.0 - came / sent;
        tell(&format!(
            "flood of {name}: {:.0}/s beside {:.0}/s for {:.0} s, {:.3} % lost, {leases} leases \
             lost, {memory:.2} MiB more",
            flooded / setting.extent.flood.as_secs_f64(),
            sent / setting.extent.flood.as_secs_f64(),
            setting.extent.flood.as_secs_f64(),
            loss * 100.0,
        ));
        let under = format!("under {name} at half of the reflector's rate");
        let rows = [
            ("loss", format!("players' datagrams lost, {under}"), loss, 0.001),
            ("leases", format!("leases lost, {under}"), leases, 0.0),
            ("memory", format!("MiB that the relay grew by, {under}"), memory, GROWTH_MAX_MIB),
        ];
        let figures = rows.into_iter().filter_map(|(part, what, value, bound)| {
            let name = format!("flood-{name}/{part}");
            Figure::of(&name, &what, &[value], Some(Bound::AtMost(bound)))
        });
        Ok(figures.collect())
    }

    fn stream(self, topology: &Topology) -> anyhow::Result<Stream> {
        let road = topology.road();
        let sources: Vec<SocketAddrV4> =
            (PLAYERS..PLAYERS + SOURCES).map(|source| Population::address(source, 1)).collect();
        let prefixes = match self {
            Self::Hello => sources.iter().map(|_| hello_prefix()).collect(),
            Self::Bind => topology.enter(|| {
                let bind = |source: &SocketAddrV4| bind_prefix(road.relay, *source);
                sources.iter().map(bind).collect::<anyhow::Result<Vec<_>>>()
            })??,
            Self::Junk => junk_prefixes(sources.len())?,
        };
        let len = match self {
            Self::Hello => Hello::LEN,
            Self::Bind => Bind::LEN,
            Self::Junk => 136,
        };
        let prefix_len = prefixes[0].len();
        let payload_len = len - prefix_len;
        let records = sources
            .iter()
            .zip(&prefixes)
            .map(|(source, prefix)| Record {
                head: head(road, *source, prefix, payload_len),
                target: [0; 4],
            })
            .collect();
        // A stamp in each: no two are alike.
        let (burst, train, stamp_bits) = (32, 1, 0);
        let frame_len = HEADERS_LEN + len;
        Ok(Stream { records, frame_len, prefix_len, burst, train, stamp_bits })
    }
}

/// The first bytes of a HELLO; its padding is not looked at.
fn hello_prefix() -> Vec<u8> {
    let hello = Hello { version_min: VERSION, version_max: VERSION, nonce: Nonce([1; 16]) };
    hello.encode()[..20].to_vec()
}

/// All of a BIND before its Noise message, with a cookie of the source's.
fn bind_prefix(relay: SocketAddrV4, source: SocketAddrV4) -> anyhow::Result<Vec<u8>> {
    let socket = UdpSocket::bind(source).with_context(|| source.to_string())?;
    socket.connect(relay)?;
    let nonce = Nonce([1; 16]);
    let challenge = super::binds::challenge(&socket, nonce)?;
    let challenge = Challenge::decode(&challenge).context("CHALLENGE")?;
    let bind = Bind { nonce, cookie: challenge.cookie, noise: &[0; Bind::NOISE_LEN] };
    Ok(bind.encode()[..Bind::LEN - Bind::NOISE_LEN].to_vec())
}

/// Random bytes, and every other time a data frame of a lease that is not.
fn junk_prefixes(count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    (0..count)
        .map(|number| {
            let mut prefix: [u8; 16] = random()?;
            if number % 2 == 0 {
                prefix[..2].copy_from_slice(&[first_byte::DATA, 0]);
            }
            Ok(prefix.to_vec())
        })
        .collect()
}
