//! The relay's UDP sockets: for each local address one SO_REUSEPORT group with a socket a shard.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::option;

/// Most local addresses of a relay.
pub const MAX_SOCKETS: usize = 64;

/// How long [`bind`] waits for an address in use. The kernel frees the sockets of a ring whose
/// process was killed a little after the process has gone: 30 to 50 ms on Linux 6.18.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);

/// One local address of the relay: its place in the list given to [`bind`], the same in each shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId(pub(crate) u8);

impl SocketId {
    /// The place in the list of local addresses.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The socket option by which a receive buffer is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BufferOption(i32);

/// How sockets are set up.
#[derive(Debug, Clone, Copy)]
pub struct SocketOptions {
    /// Bytes of SO_RCVBUF to ask for; default 8 MiB. It holds what arrives while a shard is busy. A
    /// back end shortens it while a queue stands in it (docs/src/decisions/standing-queue.md).
    /// Without CAP_NET_ADMIN the kernel stops at net.core.rmem_max: compare
    /// [`Sockets::buffer_sizes`].
    pub receive_buffer: usize,
    /// Bytes of SO_SNDBUF to ask for; default 4 MiB; the limit is net.core.wmem_max.
    pub send_buffer: usize,
    /// Take trains of datagrams (UDP_GRO) where the kernel has it; default true.
    pub gro: bool,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { receive_buffer: 8 << 20, send_buffer: 4 << 20, gro: true }
    }
}

/// Why a local address could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process, perhaps another relay, has the address.
    #[error("UDP {0} is in use: find its owner with `ss -lunp`, stop it, or choose another port")]
    AddressInUse(SocketAddr),
    /// No interface has the address.
    #[error(
        "UDP {0}: no interface has this address: add it with `ip address add`, or correct the configuration"
    )]
    AddressNotAvailable(SocketAddr),
    /// The port needs a privilege.
    #[error(
        "UDP {0}: not permitted: give the process CAP_NET_BIND_SERVICE or choose a port from 1024 up"
    )]
    NotPermitted(SocketAddr),
    /// The kernel has no such address family.
    #[error(
        "UDP {0}: this kernel has its address family switched off: leave the address out of the configuration"
    )]
    FamilyUnavailable(SocketAddr),
    /// The list of local addresses is empty or too long.
    #[error("{0} local addresses: give 1 to {MAX_SOCKETS}")]
    AddressCount(usize),
    /// A relay needs a shard.
    #[error("0 shards: give at least 1")]
    NoShards,
    /// Any other refusal of a system call.
    #[error("UDP {address}: {call} failed: {source}")]
    Refused {
        /// The local address.
        address: SocketAddr,
        /// The system call or socket option.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The sockets of one shard, one a local address.
#[derive(Debug)]
pub struct Sockets(Vec<UdpSocket>);

#[derive(Debug)]
struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
    gro: bool,
    gso: bool,
}

/// Binds each of `locals` once a shard and returns the shards' sockets. Their places in a group are
/// in that order, which [`Steering`](crate::Steering) relies on.
///
/// A port of 0 is chosen by the kernel, and then the same for all shards. The first socket of a
/// group binds *without* SO_REUSEPORT and gets the option only afterwards, so that the bind itself
/// proves that nobody else has the port, not even another relay of the same user. The kernel allows
/// it: `reuseport_add_sock` makes the group when the second socket joins
/// (net/core/sock_reuseport.c). An address in use is tried for half a second, since a relay that
/// was killed may have left it a moment ago.
///
/// # Errors
///
/// [`BindError`], naming the address. Sockets bound until then are closed.
pub fn bind(
    locals: &[SocketAddr],
    shards: usize,
    options: &SocketOptions,
) -> Result<Vec<Sockets>, BindError> {
    if locals.is_empty() || locals.len() > MAX_SOCKETS {
        return Err(BindError::AddressCount(locals.len()));
    }
    if shards == 0 {
        return Err(BindError::NoShards);
    }
    let mut groups: Vec<_> =
        (0..shards).map(|_| Sockets(Vec::with_capacity(locals.len()))).collect();
    for &local in locals {
        let first = bind_first(local, options)?;
        let local = first.local;
        groups[0].0.push(first);
        for shard in &mut groups[1..] {
            shard.0.push(UdpSocket::bind(local, Join::Later, options)?);
        }
    }
    Ok(groups)
}

impl Sockets {
    /// The local addresses, with the ports the kernel chose.
    pub fn locals(&self) -> impl ExactSizeIterator<Item = (SocketId, SocketAddr)> + '_ {
        self.0.iter().enumerate().map(|(index, socket)| (SocketId(index as u8), socket.local))
    }

    /// Bytes the kernel granted for (SO_RCVBUF, SO_SNDBUF) of a socket, less its own doubling
    /// (socket(7)).
    ///
    /// # Errors
    ///
    /// What getsockopt says.
    pub fn buffer_sizes(&self, id: SocketId) -> io::Result<(usize, usize)> {
        let socket = &self.0[id.index()].socket;
        Ok((socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2))
    }

    /// Whether the kernel joins datagrams on receive (UDP_GRO) and splits them on send
    /// (UDP_SEGMENT) for this socket.
    pub fn offloads(&self, id: SocketId) -> (bool, bool) {
        let socket = &self.0[id.index()];
        (socket.gro, socket.gso)
    }

    /// A sender for another thread over the same sockets.
    ///
    /// # Errors
    ///
    /// What dup says: usually the limit of open files.
    pub fn sender(&self) -> io::Result<Sender> {
        let sockets =
            self.0.iter().map(|socket| socket.socket.try_clone()).collect::<io::Result<_>>()?;
        Ok(Sender(sockets))
    }

    /// Descriptors of the same sockets, in order, for another process to [`adopt`](Self::adopt).
    ///
    /// # Errors
    ///
    /// What dup says: usually the limit of open files.
    pub fn duplicate(&self) -> io::Result<Vec<OwnedFd>> {
        self.0.iter().map(|socket| socket.socket.as_fd().try_clone_to_owned()).collect()
    }

    /// One shard's sockets as another process has bound them and set them up.
    ///
    /// # Errors
    ///
    /// A descriptor is no bound UDP socket.
    pub fn adopt(descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        if descriptors.is_empty() || descriptors.len() > MAX_SOCKETS {
            return Err(io::Error::other(BindError::AddressCount(descriptors.len())));
        }
        descriptors.into_iter().map(UdpSocket::adopt).collect::<io::Result<_>>().map(Self)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Socket> {
        self.0.iter().map(|socket| &socket.socket)
    }

    /// How a receive buffer that has `bytes` can be set to them again. `None`: not at all, since that
    /// is beyond net.core.rmem_max and takes CAP_NET_ADMIN, which who bound the socket had.
    pub(crate) fn receive_buffer_option(&self, id: SocketId, bytes: usize) -> Option<BufferOption> {
        let force = BufferOption(libc::SO_RCVBUFFORCE);
        if self.set_receive_buffer(id, force, bytes).is_ok() {
            return Some(force);
        }
        let most = std::fs::read_to_string("/proc/sys/net/core/rmem_max").ok()?;
        (bytes <= most.trim().parse().ok()?).then_some(BufferOption(libc::SO_RCVBUF))
    }

    /// Makes a receive buffer so many bytes long. What waits in it stays.
    pub(crate) fn set_receive_buffer(
        &self,
        id: SocketId,
        BufferOption(name): BufferOption,
        bytes: usize,
    ) -> io::Result<()> {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        option::set(&self.0[id.index()].socket, libc::SOL_SOCKET, name, bytes)
    }

    /// Whether the kernel says of each datagram when it came. That costs 70 ns a datagram.
    pub(crate) fn tell_arrival(&self, is_told: bool) {
        for socket in self.iter() {
            // It was permitted when the socket was bound.
            let _ = option::set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, is_told.into());
        }
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.0.iter().map(|socket| socket.socket.as_raw_fd())
    }

    pub(crate) fn gso_support(&self) -> impl Iterator<Item = bool> + '_ {
        self.0.iter().map(|socket| socket.gso)
    }
}

/// Sends from a shard's local addresses, on any thread.
#[derive(Debug)]
pub struct Sender(Vec<Socket>);

impl Sender {
    /// Sends one datagram without waiting.
    ///
    /// # Errors
    ///
    /// What sendto says; [`io::ErrorKind::WouldBlock`] if the send buffer is full.
    pub fn send_to(&self, socket: SocketId, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        self.0[socket.index()].send_to_with_flags(bytes, &to.into(), libc::MSG_DONTWAIT).map(drop)
    }

    pub(crate) fn descriptors(&self) -> impl ExactSizeIterator<Item = RawFd> + '_ {
        self.0.iter().map(AsRawFd::as_raw_fd)
    }
}

/// Binds the first socket of a group; waits a moment for an address that is in use.
fn bind_first(local: SocketAddr, options: &SocketOptions) -> Result<UdpSocket, BindError> {
    let deadline = Instant::now() + RELEASE_TIMEOUT;
    loop {
        match UdpSocket::bind(local, Join::First, options) {
            Err(BindError::AddressInUse(_)) if Instant::now() < deadline => {
                std::thread::sleep(RELEASE_TIMEOUT / 50);
            }
            result => return result,
        }
    }
}

enum Join {
    First,
    Later,
}

impl UdpSocket {
    fn adopt(descriptor: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(descriptor);
        let gso = option::read(&socket, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        let gro = option::read(&socket, libc::SOL_UDP, libc::UDP_GRO).is_ok_and(|on| on != 0);
        let is_udp = socket.protocol()? == Some(Protocol::UDP);
        let local = socket.local_addr()?.as_socket().filter(|local| is_udp && local.port() != 0);
        let local = local.ok_or_else(|| io::Error::other("it is no bound UDP socket"))?;
        Ok(Self { socket, local, gro, gso })
    }

    fn bind(local: SocketAddr, join: Join, options: &SocketOptions) -> Result<Self, BindError> {
        let refused = |call| move |source| BindError::Refused { address: local, call, source };
        // Blocking, for io_uring: with O_NONBLOCK a receive fails with EAGAIN where it should wait
        // (io_uring/net.c). All calls of ours say MSG_DONTWAIT.
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))
            .map_err(|error| bind_error(local, "socket", error))?;
        match local {
            SocketAddr::V4(_) => {
                option::set(
                    &socket,
                    libc::IPPROTO_IP,
                    libc::IP_MTU_DISCOVER,
                    libc::IP_PMTUDISC_PROBE,
                )
                .map_err(refused("IP_MTU_DISCOVER"))?;
            }
            SocketAddr::V6(_) => {
                socket.set_only_v6(true).map_err(refused("IPV6_V6ONLY"))?;
                option::set(
                    &socket,
                    libc::IPPROTO_IPV6,
                    libc::IPV6_MTU_DISCOVER,
                    libc::IPV6_PMTUDISC_PROBE,
                )
                .map_err(refused("IPV6_MTU_DISCOVER"))?;
            }
        }
        option::set(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)
            .map_err(refused("SO_RXQ_OVFL"))?;
        set_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, options.receive_buffer)
            .map_err(refused("SO_RCVBUF"))?;
        set_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, options.send_buffer)
            .map_err(refused("SO_SNDBUF"))?;
        // Once asked for, the kernel notes when each datagram came for as long as the socket lives
        // (net/core/sock.c, `__sock_set_timestamps`); it tells only while asked to.
        for is_told in [1, 0] {
            option::set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, is_told)
                .map_err(refused("SO_TIMESTAMPNS"))?;
        }
        let gro = options.gro && option::set(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        let gso = option::read(&socket, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();

        if matches!(join, Join::Later) {
            socket.set_reuse_port(true).map_err(refused("SO_REUSEPORT"))?;
        }
        socket.bind(&local.into()).map_err(|error| bind_error(local, "bind", error))?;
        if matches!(join, Join::First) {
            socket.set_reuse_port(true).map_err(refused("SO_REUSEPORT"))?;
        }
        let bound =
            socket.local_addr().map_err(refused("getsockname"))?.as_socket().unwrap_or(local);
        Ok(Self { socket, local: bound, gro, gso })
    }
}

/// Asks for a buffer beyond the sysctl limit, and within it if that is not permitted.
fn set_buffer(socket: &Socket, force: i32, ordinary: i32, bytes: usize) -> io::Result<()> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    option::set(socket, libc::SOL_SOCKET, force, bytes)
        .or_else(|_| option::set(socket, libc::SOL_SOCKET, ordinary, bytes))
}

fn bind_error(address: SocketAddr, call: &'static str, source: io::Error) -> BindError {
    match source.raw_os_error() {
        Some(libc::EADDRINUSE) => BindError::AddressInUse(address),
        Some(libc::EADDRNOTAVAIL) => BindError::AddressNotAvailable(address),
        Some(libc::EACCES | libc::EPERM) => BindError::NotPermitted(address),
        Some(libc::EAFNOSUPPORT) => BindError::FamilyUnavailable(address),
        _ => BindError::Refused { address, call, source },
    }
}
