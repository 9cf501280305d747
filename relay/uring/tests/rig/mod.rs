//! A relay back end and plain sockets around it, on loopback.
#![allow(dead_code, reason = "each test binary uses a part of the rig")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene fails")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lanrage_relay_uring::{
    Backend, BackendKind, Counters, Handler, Options, Received, SocketId, SocketOptions, Sockets,
    Tx, bind,
};

/// Defines each test once a back end.
#[macro_export]
macro_rules! on_both {
    ($($(#[$meta:meta])* fn $name:ident($kind:ident: BackendKind) $body:block)*) => {
        $($(#[$meta])* mod $name {
            #[allow(unused_imports, reason = "not every test needs all")]
            use super::*;
            fn scenario($kind: BackendKind) $body
            #[test]
            fn io_uring() { scenario(BackendKind::Uring) }
            #[test]
            fn recvmmsg() { scenario(BackendKind::Mmsg) }
        })*
    };
}

pub(crate) struct Rig {
    pub(crate) backend: Backend,
    pub(crate) counters: Arc<Counters>,
    pub(crate) ids: Vec<SocketId>,
    pub(crate) locals: Vec<SocketAddr>,
}

impl Rig {
    pub(crate) fn new(kind: BackendKind) -> Self {
        Self::with(kind, &["127.0.0.1:0"], &Options::default(), &SocketOptions::default())
    }

    pub(crate) fn with(
        kind: BackendKind,
        locals: &[&str],
        options: &Options,
        sockets: &SocketOptions,
    ) -> Self {
        let locals: Vec<SocketAddr> = locals.iter().map(|local| local.parse().unwrap()).collect();
        Self::over(kind, bind(&locals, 1, sockets).unwrap().pop().unwrap(), options)
    }

    pub(crate) fn over(kind: BackendKind, sockets: Sockets, options: &Options) -> Self {
        let (ids, locals) = sockets.locals().unzip();
        let backend = Backend::open(kind, sockets, options).unwrap();
        Self { counters: backend.counters(), backend, ids, locals }
    }

    pub(crate) fn turn(&mut self, handler: &mut impl Handler) {
        self.backend.turn(handler, Duration::from_millis(5)).unwrap();
    }

    /// Turns until the counters satisfy `done`, and once more so that what was queued is sent.
    pub(crate) fn drive(&mut self, handler: &mut impl Handler, done: impl Fn(&Counters) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done(&self.counters) {
            assert!(Instant::now() < deadline, "gave up: {:#?}", self.counters);
            self.turn(handler);
        }
        self.backend.turn(handler, Duration::ZERO).unwrap();
        self.assert_identity();
    }

    pub(crate) fn assert_identity(&self) {
        let counters = &self.counters;
        assert_eq!(
            counters.tx_planned.get(),
            counters.tx_datagrams.get() + counters.tx_failed_total(),
            "{counters:#?}"
        );
    }

    /// Sends a train, or single datagrams, from the rig's first socket.
    pub(crate) fn send(&mut self, to: SocketAddr, bytes: &[u8], segment_size: Option<u16>) {
        let socket = self.ids[0];
        let mut pending = Some(());
        let mut handler = AtEnd(|tx: &mut Tx<'_>| {
            if pending.take().is_some() {
                tx.forward(socket, to, bytes, segment_size);
            }
        });
        for _ in 0..2 {
            self.backend.turn(&mut handler, Duration::ZERO).unwrap();
        }
    }
}

/// Ends other threads' work, however a test ends.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A handler of single arrivals.
pub(crate) struct Each<F>(pub(crate) F);

impl<F: FnMut(Received<'_>, &mut Tx<'_>)> Handler for Each<F> {
    fn receive(&mut self, arrival: Received<'_>, tx: &mut Tx<'_>) {
        (self.0)(arrival, tx);
    }

    fn batch_end(&mut self, _: &mut Tx<'_>) {}
}

/// A handler of batch ends.
pub(crate) struct AtEnd<F>(pub(crate) F);

impl<F: FnMut(&mut Tx<'_>)> Handler for AtEnd<F> {
    fn receive(&mut self, _: Received<'_>, _: &mut Tx<'_>) {}

    fn batch_end(&mut self, tx: &mut Tx<'_>) {
        (self.0)(tx);
    }
}

/// Sends everything back whole.
pub(crate) fn echo() -> Each<impl FnMut(Received<'_>, &mut Tx<'_>)> {
    Each(|arrival: Received<'_>, tx: &mut Tx<'_>| {
        tx.forward(
            arrival.socket,
            arrival.source,
            arrival.bytes,
            Some(arrival.segment_size as u16),
        );
    })
}

/// Sends everything to `to` as it came.
pub(crate) fn forward_to(to: SocketAddr) -> Each<impl FnMut(Received<'_>, &mut Tx<'_>)> {
    Each(move |arrival: Received<'_>, tx: &mut Tx<'_>| {
        tx.forward(arrival.socket, to, arrival.bytes, Some(arrival.segment_size as u16));
    })
}

/// A plain socket with room for `datagrams` small ones, that gives up after 2 s.
pub(crate) fn peer_at(local: &str, datagrams: usize) -> UdpSocket {
    let peer = UdpSocket::bind(local).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let peer = socket2::Socket::from(peer);
    peer.set_recv_buffer_size((datagrams * 1024).max(1 << 16)).unwrap();
    peer.into()
}

pub(crate) fn peer() -> UdpSocket {
    peer_at("127.0.0.1:0", 2000)
}

pub(crate) fn receive(peer: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 70_000];
    let (len, source) = peer.recv_from(&mut bytes).unwrap();
    bytes.truncate(len);
    (bytes, source)
}

pub(crate) fn assert_silent(peer: &UdpSocket) {
    peer.set_nonblocking(true).unwrap();
    let result = peer.recv_from(&mut [0; 8]);
    assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

/// An address of loopback where nobody listens.
pub(crate) fn closed_port() -> SocketAddr {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// `segments` segments of `size` bytes, each different.
pub(crate) fn train(segments: usize, size: usize) -> Vec<u8> {
    (0..segments)
        .flat_map(|segment| (0..size).map(move |byte| (segment * 31 + byte) as u8))
        .collect()
}
