//! Reflectors: what a relay would cost if it looked nothing up and checked nothing.
//!
//! A static array maps the number in a datagram's bytes 8 to 11 to an address. Buffers, batches and
//! destinations are those of a relay.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use lanrage_bench_bpf::{Batch, Target, prepare};
use lanrage_relay_uring::{
    Backend, BackendKind, Handler, Options, Received, SocketOptions, Tx, bind,
};
use socket2::{Domain, Socket, Type};

/// How a reflector talks to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReflectorKind {
    /// recvmmsg with GRO and sendmmsg, in a bare loop.
    Bare,
    /// The relay's recvmmsg back end.
    Recvmmsg,
    /// The relay's io_uring back end.
    IoUring,
}

/// Reflects for ever. Says `ready` when it begins.
///
/// # Errors
///
/// What the kernel refuses.
pub fn reflect(
    kind: ReflectorKind,
    listen: SocketAddrV4,
    targets: &[SocketAddrV4],
) -> anyhow::Result<()> {
    match kind {
        ReflectorKind::Bare => bare(listen, targets),
        ReflectorKind::Recvmmsg => engine(BackendKind::Mmsg, listen, targets),
        ReflectorKind::IoUring => engine(BackendKind::Uring, listen, targets),
    }
}

fn ready() {
    #[expect(clippy::print_stdout, reason = "the runner waits for this line")]
    {
        println!("ready");
    }
}

/// The place in the array that a datagram names.
fn index(datagram: &[u8]) -> Option<usize> {
    let number: [u8; 4] = *datagram.get(8..)?.first_chunk()?;
    Some(u32::from_be_bytes(number) as usize)
}

struct Reflect(Box<[SocketAddr]>);

impl Handler for Reflect {
    fn receive(&mut self, arrival: Received<'_>, tx: &mut Tx<'_>) {
        let target = index(arrival.bytes).and_then(|index| self.0.get(index));
        let Some(target) = target else { return };
        let train = u16::try_from(arrival.segment_size).ok();
        tx.forward(arrival.socket, *target, arrival.bytes, train);
    }

    fn batch_end(&mut self, _: &mut Tx<'_>) {}
}

fn engine(kind: BackendKind, listen: SocketAddrV4, targets: &[SocketAddrV4]) -> anyhow::Result<()> {
    let sockets = bind(&[listen.into()], 1, &SocketOptions::default())?.remove(0);
    let mut backend = Backend::open(kind, sockets, &Options::default())?;
    let mut reflect = Reflect(targets.iter().map(|target| (*target).into()).collect());
    ready();
    loop {
        backend.turn(&mut reflect, Duration::from_millis(250)).context("receiving")?;
    }
}

fn bare(listen: SocketAddrV4, targets: &[SocketAddrV4]) -> anyhow::Result<()> {
    let targets: Vec<Target> = targets.iter().map(|target| (*target).into()).collect();
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).context("making a socket")?;
    let options = SocketOptions::default();
    prepare(&socket, options.receive_buffer, options.send_buffer).context("socket options")?;
    socket.bind(&SocketAddr::V4(listen).into()).with_context(|| format!("binding {listen}"))?;
    let mut batch = Batch::new();
    ready();
    loop {
        let choose = |datagram: &[u8]| index(datagram).and_then(|index| targets.get(index));
        batch.forward(&socket, choose).context("receiving")?;
    }
}
