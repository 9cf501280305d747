//! The tasks: one for each listener, two for each stream, one for what other threads send.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::connection::Connection;
use super::exchange::{Exchange, Stream};
use super::gate::{Gate, Place};
use super::outlet::Outlet;
use super::{Closed, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, Refused, STALL_TIMEOUT};
use crate::clock::Clock;

/// A TLS record fits, so that one is seldom read in pieces.
pub(super) const READ_LEN: usize = 18 << 10;
/// Bytes that a stream may send before others have their turn, a millisecond of this thread's time.
const READ_LEN_PER_TURN: usize = 64 << 10;
/// What a stream keeps of its send buffer while it is quiet.
const QUIET_LEN: usize = 4 << 10;
/// After accept failed, until connections may have ended.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a stream that ends may take to say so.
const FAREWELL: Duration = Duration::from_secs(1);
/// Datagrams of other threads before streams have their turn.
const PARCELS_PER_PASS: usize = 256;

/// What the tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) exchange: RefCell<Exchange>,
    pub(super) gate: Rc<RefCell<Gate>>,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) outlet: Outlet,
    pub(super) clock: Clock,
    /// What a stream reads, until it is handled.
    pub(super) buffer: RefCell<Box<[u8; READ_LEN]>>,
    /// A number names one stream ever, over restarts, too.
    pub(super) next_number: Cell<u64>,
}

/// Accepts for ever.
pub(super) async fn accept(shared: Rc<Shared>, listener: TcpListener) {
    loop {
        let Ok((socket, peer)) = listener.accept().await else {
            shared.exchange.borrow_mut().refuse(Refused::Accept);
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        match Gate::admit(&shared.gate, peer.ip(), shared.clock.ms()) {
            Ok(place) => drop(spawn_local(converse(shared.clone(), socket, peer, place))),
            Err(reason) => shared.exchange.borrow_mut().refuse(reason),
        }
    }
}

/// Hands datagrams of other threads to streams, and makes the copies that wait, for ever.
pub(super) async fn exchange(shared: Rc<Shared>) {
    loop {
        let mut is_done = true;
        {
            let mut exchange = shared.exchange.borrow_mut();
            exchange.begin_pass();
            for at in 0..PARCELS_PER_PASS {
                let Some(parcel) = shared.outlet.pop() else { break };
                exchange.deliver(&parcel);
                is_done = at + 1 < PARCELS_PER_PASS;
            }
            exchange.end_pass();
            is_done &= !exchange.is_backlogged();
        }
        match is_done {
            true => shared.outlet.arrived().await,
            false => yield_now().await,
        }
    }
}

/// One stream from its first byte to its last.
async fn converse(shared: Rc<Shared>, socket: TcpStream, peer: SocketAddr, _place: Place) {
    let Ok(connection) = Connection::new(shared.tls.clone()) else { return };
    let number = shared.next_number.get();
    shared.next_number.set(number.wrapping_add(1));
    let stream = Stream::new(number, peer, connection);
    shared.exchange.borrow_mut().open(&stream);

    let (socket, writer) = socket.into_split();
    let mut writer = spawn_local(write(shared.clone(), stream.clone(), writer));
    let end = read(&shared, &stream, &socket).await;
    stream.connection.borrow_mut().close();
    stream.end(end);
    shared.exchange.borrow_mut().close(&stream);
    if timeout(FAREWELL, &mut writer).await.is_err() {
        shutdown(socket.as_ref());
        let _ = writer.await;
    }
    shutdown(socket.as_ref());
}

/// Ends both ways, and the calls under way.
fn shutdown(socket: &TcpStream) {
    // An error means that the peer did.
    let _ = SockRef::from(socket).shutdown(Shutdown::Both);
}

async fn read(shared: &Rc<Shared>, stream: &Stream, socket: &OwnedReadHalf) -> Closed {
    let handshake_by = Instant::now() + HANDSHAKE_TIMEOUT;
    let mut is_established = false;
    let mut read_len = 0;
    loop {
        // A socket that always has more would never wait.
        if read_len > READ_LEN_PER_TURN {
            read_len = 0;
            yield_now().await;
        }
        let (by, late) = match is_established {
            true => (stream.heard.get() + IDLE_TIMEOUT, Closed::Idle),
            false => (handshake_by, Closed::Handshake),
        };
        let Ok(readable) = timeout_at(by, socket.readable()).await else { return late };
        let mut buffer = shared.buffer.borrow_mut();
        let len = match readable.and_then(|()| socket.try_read(&mut buffer[..])) {
            Ok(len @ 1..) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Ok(0) | Err(_) => return Closed::Ended,
        };
        read_len += len;
        let mut exchange = shared.exchange.borrow_mut();
        exchange.begin_pass();
        let mut connection = stream.connection.borrow_mut();
        let received =
            connection.receive(&buffer[..len], |datagram| exchange.handle(stream, datagram));
        if connection.is_established() && !std::mem::replace(&mut is_established, true) {
            stream.heard.set(Instant::now());
            exchange.note_established();
        }
        exchange.end_pass();
        if exchange.is_backlogged() {
            shared.outlet.wake();
        }
        if connection.wants_transmit() {
            stream.sendable.notify_one();
        }
        if let Err(end) = received {
            return end;
        }
    }
}

async fn write(shared: Rc<Shared>, stream: Rc<Stream>, mut socket: OwnedWriteHalf) {
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        shared.exchange.borrow_mut().transmit(&stream, &mut buffer);
        if buffer.is_empty() {
            if stream.is_over() {
                return;
            }
            buffer.shrink_to(QUIET_LEN);
            stream.sendable.notified().await;
            continue;
        }
        match timeout(STALL_TIMEOUT, socket.write_all(&buffer)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return shutdown(socket.as_ref()),
            Err(_) => {
                stream.end(Closed::Stalled);
                return shutdown(socket.as_ref());
            }
        }
    }
}
