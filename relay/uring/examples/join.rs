//! Sends groups of equal datagrams to one destination each, and says what a datagram costs: for
//! measuring from how many on a train pays.
//!
//! ```text
//! join uring|mmsg LOCAL:PORT TO LENGTH GROUP auto|off SECONDS
//! ```
#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lanrage_relay_uring::{
    Backend, BackendKind, GsoMode, GsoSwitch, Handler, Options, Received, SocketId, SocketOptions,
    Tx, bind,
};

const BATCH: usize = 64;

struct Groups {
    socket: SocketId,
    to: IpAddr,
    bytes: Vec<u8>,
    group: usize,
}

impl Handler for Groups {
    fn receive(&mut self, _: Received<'_>, _: &mut Tx<'_>) {}

    fn batch_end(&mut self, tx: &mut Tx<'_>) {
        for at in 0..BATCH {
            let to = SocketAddr::new(self.to, 9000 + (at / self.group) as u16);
            tx.send(self.socket, to, &self.bytes);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, local, to, length, group, gso, seconds] = arguments.as_slice() else {
        return Err("usage: join uring|mmsg LOCAL:PORT TO LENGTH GROUP auto|off SECONDS".into());
    };
    let kind = if kind == "uring" { BackendKind::Uring } else { BackendKind::Mmsg };
    let mode = if gso == "off" { GsoMode::Off } else { GsoMode::Auto };
    let sockets = bind(&[local.parse()?], 1, &SocketOptions::default())?.remove(0);
    let socket = sockets.locals().next().ok_or("no socket")?.0;
    let options = Options { gso: GsoSwitch::new(mode), ..Options::default() };
    let mut backend = Backend::open(kind, sockets, &options)?;
    let bytes = vec![7; length.parse()?];
    let mut groups = Groups { socket, to: to.parse()?, bytes, group: group.parse()? };
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(seconds.parse()?);
    while Instant::now() < end {
        backend.turn(&mut groups, Duration::ZERO)?;
    }
    let counters = backend.counters();
    let sent = counters.tx_datagrams.get().max(1);
    println!(
        "{} length {length} group {group} gso {gso}: {:.0} ns a datagram, {} joined, {} failed",
        kind.as_str(),
        start.elapsed().as_nanos() as f64 / sent as f64,
        counters.tx_joined.get(),
        counters.tx_failed_total(),
    );
    Ok(())
}
