//! Sends every datagram back to where it came from, and says what it cost: for measuring the back
//! ends against each other.
//!
//! ```text
//! reflect uring|mmsg 127.0.0.1:7000 SECONDS
//! ```
#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::time::{Duration, Instant};

use lanrage_relay_uring::{
    Backend, BackendKind, Handler, Options, Received, SocketOptions, Tx, bind,
};

struct Reflect;

impl Handler for Reflect {
    fn receive(&mut self, arrival: Received<'_>, tx: &mut Tx<'_>) {
        let segment_size = u16::try_from(arrival.segment_size).ok();
        tx.forward(arrival.socket, arrival.source, arrival.bytes, segment_size);
    }

    fn batch_end(&mut self, _: &mut Tx<'_>) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, local, seconds] = arguments.as_slice() else {
        return Err("usage: reflect uring|mmsg ADDRESS:PORT SECONDS".into());
    };
    let kind = match kind.as_str() {
        "uring" => BackendKind::Uring,
        "mmsg" => BackendKind::Mmsg,
        _ => return Err("the back end is uring or mmsg".into()),
    };
    let sockets = bind(&[local.parse()?], 1, &SocketOptions::default())?.remove(0);
    let mut backend = Backend::open(kind, sockets, &Options::default())?;
    let counters = backend.counters();
    let end = Instant::now() + Duration::from_secs(seconds.parse()?);
    let before = cpu_seconds()?;
    while Instant::now() < end {
        backend.turn(&mut Reflect, Duration::from_millis(100))?;
    }
    let cpu = cpu_seconds()? - before;
    let datagrams = counters.tx_datagrams.get().max(1);
    println!(
        "{} {} datagrams, {:.2} µs CPU each, {:.1} a batch, {:.1} a train, {:.3} system calls each, {} failed, {} dropped by the kernel",
        kind.as_str(),
        datagrams,
        cpu * 1e6 / datagrams as f64,
        counters.rx_segments.get() as f64 / counters.batches.get().max(1) as f64,
        counters.rx_segments.get() as f64 / counters.rx_arrivals.get().max(1) as f64,
        counters.syscalls.get() as f64 / datagrams as f64,
        counters.tx_failed_total(),
        counters.rx_kernel_drops.get(),
    );
    Ok(())
}

/// CPU time of this process, user and system, in seconds: fields 14 and 15 of /proc/self/stat, in
/// ticks of 1/100 s (proc(5)).
fn cpu_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(") ").next().ok_or("no fields in /proc/self/stat")?;
    let mut ticks = fields.split(' ').skip(11).map(str::parse::<f64>);
    let (Some(user), Some(system)) = (ticks.next(), ticks.next()) else {
        return Err("too few fields in /proc/self/stat".into());
    };
    Ok((user? + system?) / 100.0)
}
