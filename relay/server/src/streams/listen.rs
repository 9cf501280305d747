use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU16;
use std::os::fd::{AsFd as _, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::failure::Failure;
use crate::handover::Taken;

/// Connections that the kernel completes ahead of us.
const BACKLOG: i32 = 1024;
/// What the kernel holds for a peer that does not read, beside what waits in our queue. 128 KiB in a
/// round trip of 50 ms are 20 Mbit/s.
const SEND_BUFFER: usize = 128 << 10;
/// Bytes that the kernel has not sent yet while it still asks for more: what is queued there cannot
/// be dropped when something newer comes (TCP_NOTSENT_LOWAT, tcp(7)).
const NOT_SENT: u32 = 32 << 10;

/// The TCP listeners, bound before the relay gives up its start.
#[derive(Debug)]
pub(crate) struct Listeners(pub(super) Vec<TcpListener>);

impl Listeners {
    /// Those of the process before where they are bound as asked, else new ones.
    ///
    /// # Errors
    /// [`Failure::BindStreams`], naming the address.
    pub(crate) fn open(
        addresses: &[SocketAddr],
        mut taken: Option<&mut Taken>,
    ) -> Result<Self, Failure> {
        let open = |(at, &address): (usize, &SocketAddr)| {
            let before = taken.as_mut().and_then(|taken| taken.listener(&name(at)));
            let before = before.map(TcpListener::from).filter(|listener| {
                let is_asked = |bound: SocketAddr| {
                    bound == address || (address.port() == 0 && bound.ip() == address.ip())
                };
                listener.local_addr().is_ok_and(is_asked)
            });
            before
                .map_or_else(|| bind(address), Ok)
                .map_err(|source| Failure::BindStreams { address, source })
        };
        Ok(Self(addresses.iter().enumerate().map(open).collect::<Result<_, _>>()?))
    }

    /// With the names under which another process takes them over.
    pub(crate) fn named(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        self.0.iter().enumerate().map(|(at, listener)| (name(at), listener.as_fd()))
    }

    /// Whether no streams are to be served.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// With the ports the kernel chose.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.0.iter().filter_map(|listener| listener.local_addr().ok())
    }

    /// The port that clients are told: the settings give one for all addresses.
    pub(crate) fn port(&self) -> Option<NonZeroU16> {
        NonZeroU16::new(self.addresses().next()?.port())
    }
}

fn name(at: usize) -> String {
    format!("stream-{at}")
}

/// What is accepted inherits the options (`sk_clone_lock` in net/core/sock.c).
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_notsent_lowat(NOT_SENT)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
