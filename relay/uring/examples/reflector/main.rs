//! A relay that looks nothing up and checks nothing: the floor that the benchmark compares with.
//!
//! ```text
//! reflector bare|recvmmsg|io_uring LISTEN TARGETS
//! ```
//!
//! A static array, the file's lines, maps the number in a datagram's bytes 8 to 11 to an address.
//! Buffers, batches and destinations are those of a relay. Says `ready` when it begins, and reflects
//! for ever.
#![expect(clippy::print_stdout, reason = "the benchmark waits for the line")]

use std::error::Error;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use lanrage_relay_uring::{
    Backend, BackendKind, Handler, Options, Received, SocketOptions, Tx, bind,
};
use socket2::{Domain, Socket, Type};

mod bare;
use bare::{Batch, Target, prepare};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, listen, targets] = arguments.as_slice() else {
        return Err("usage: reflector bare|recvmmsg|io_uring ADDRESS:PORT FILE".into());
    };
    let listen = listen.parse()?;
    let lines = std::fs::read_to_string(targets)?;
    let targets: Vec<SocketAddrV4> = lines.lines().map(str::parse).collect::<Result<_, _>>()?;
    match kind.as_str() {
        "bare" => bare(listen, &targets),
        "recvmmsg" => engine(BackendKind::Mmsg, listen, &targets),
        "io_uring" => engine(BackendKind::Uring, listen, &targets),
        _ => Err("a reflector is bare, recvmmsg or io_uring".into()),
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

/// On the relay's own engine with its default options.
fn engine(
    kind: BackendKind,
    listen: SocketAddrV4,
    targets: &[SocketAddrV4],
) -> Result<(), Box<dyn Error>> {
    let sockets = bind(&[listen.into()], 1, &SocketOptions::default())?.remove(0);
    let mut backend = Backend::open(kind, sockets, &Options::default())?;
    let mut reflect = Reflect(targets.iter().map(|target| (*target).into()).collect());
    println!("ready");
    loop {
        backend.turn(&mut reflect, Duration::from_millis(250))?;
    }
}

/// Without it.
fn bare(listen: SocketAddrV4, targets: &[SocketAddrV4]) -> Result<(), Box<dyn Error>> {
    let targets: Vec<Target> = targets.iter().map(|target| (*target).into()).collect();
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let options = SocketOptions::default();
    prepare(&socket, options.receive_buffer, options.send_buffer)?;
    socket.bind(&SocketAddr::V4(listen).into())?;
    let mut batch = Batch::new();
    println!("ready");
    loop {
        batch.forward(&socket, |bytes| index(bytes).and_then(|index| targets.get(index)))?;
    }
}
