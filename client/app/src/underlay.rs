//! The UDP sockets towards the relays: one for each address family, read in batches.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Datagrams, or trains of datagrams that the kernel joined (UDP_GRO), in one system call.
const BATCH: usize = 8;
/// A joined train is at most one IPv4 packet long.
const TRAIN_LEN_MAX: usize = 65_535;
/// 160 ms at 100 Mbit/s: what may wait while this process does not run.
const SOCKET_BUFFER: usize = 2 << 20;

/// Datagrams the kernel did not take, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendDrops {
    /// The socket's buffer is full.
    pub full: u64,
    /// Longer than the path's MTU.
    pub too_long: u64,
    /// No socket of the address's family, or any other refusal: mostly no route.
    pub refused: u64,
}

/// One UDP socket for each address family the host has.
#[derive(Debug)]
pub struct Underlay {
    ipv4: Family,
    ipv6: Option<Family>,
    trains: Box<[u8]>,
    drops: SendDrops,
}

#[derive(Debug)]
struct Family {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Underlay {
    /// Binds random ports.
    ///
    /// # Errors
    /// There is no IPv4 socket to be had; a host without IPv6 goes without.
    pub fn bind() -> io::Result<Self> {
        Ok(Self {
            ipv4: Family::bind(Ipv4Addr::UNSPECIFIED.into())?,
            ipv6: Family::bind(Ipv6Addr::UNSPECIFIED.into()).ok(),
            trains: vec![0; BATCH * TRAIN_LEN_MAX].into(),
            drops: SendDrops::default(),
        })
    }

    /// Datagrams the kernel did not take.
    pub const fn drops(&self) -> SendDrops {
        self.drops
    }

    /// Waits until a datagram is there.
    ///
    /// # Cancel safety
    /// Nothing is read.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.ipv6 {
            None => self.ipv4.socket.readable().await,
            Some(ipv6) => tokio::select! {
                ready = self.ipv4.socket.readable() => ready,
                ready = ipv6.socket.readable() => ready,
            },
        }
    }

    /// Hands over one batch of each family, without waiting.
    pub fn receive(&mut self, mut handle: impl FnMut(SocketAddr, &[u8])) {
        let Self { ipv4, ipv6, trains, .. } = self;
        for family in std::iter::once(&*ipv4).chain(ipv6.as_ref()) {
            family.receive(trains, &mut handle);
        }
    }

    /// Sends a datagram, or drops and counts it.
    pub fn send(&mut self, to: SocketAddr, payload: &[u8]) {
        let family = match to {
            SocketAddr::V4(_) => Some(&self.ipv4),
            SocketAddr::V6(_) => self.ipv6.as_ref(),
        };
        let sent = family.map_or(Err(io::ErrorKind::Unsupported.into()), |f| f.send(to, payload));
        let Err(error) = sent else { return };
        let too_long = rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::MSGSIZE);
        if error.kind() == io::ErrorKind::WouldBlock {
            self.drops.full += 1;
        } else if too_long {
            self.drops.too_long += 1;
        } else {
            self.drops.refused += 1;
        }
    }
}

impl Family {
    fn bind(any: IpAddr) -> io::Result<Self> {
        let address = SocketAddr::new(any, 0);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // Sources are never IPv4-mapped addresses.
            socket.set_only_v6(true)?;
        }
        // Beyond net.core.rmem_max where the process may; its default holds 15 ms at 100 Mbit/s.
        if sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER).is_err() {
            socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        }
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.bind(&address.into())?;
        // Sets IP_PMTUDISC_PROBE and UDP_GRO.
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, state })
    }

    fn receive(&self, trains: &mut [u8], handle: &mut impl FnMut(SocketAddr, &[u8])) {
        let mut metas = [RecvMeta::default(); BATCH];
        let mut buffers = trains.chunks_exact_mut(TRAIN_LEN_MAX);
        let mut slices: [IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().expect("BATCH trains fit")));
        let received = self.socket.try_io(Interest::READABLE, || {
            self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas)
        });
        // An error is either "nothing there" or an ICMP error about an earlier datagram, which
        // says nothing that the core's own probes do not tell better.
        let count = received.unwrap_or(0);
        for (meta, train) in metas[..count].iter().zip(&slices) {
            for datagram in train[..meta.len].chunks(meta.stride.max(1)) {
                handle(meta.addr, datagram);
            }
        }
    }

    fn send(&self, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: payload,
            segment_size: None,
            src_ip: None,
        };
        // Past tokio's readiness, which a fresh socket lacks until the runtime has polled once.
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn exchange(peer: std::net::UdpSocket) {
        let mut underlay = Underlay::bind().unwrap();
        let to = peer.local_addr().unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for length in [1_u8, 100, 100, 100, 7] {
            underlay.send(to, &vec![length; usize::from(length)]);
        }
        let mut buffer = [0; 2000];
        let mut from = None;
        for length in [1, 100, 100, 100, 7] {
            let (received, source) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!(received, length);
            from = Some(source);
        }
        let from = from.unwrap();
        for length in [3_usize, 900, 900, 900, 5] {
            peer.send_to(&vec![length as u8; length], from).unwrap();
        }
        let mut lengths = Vec::new();
        while lengths.len() < 5 {
            let ready = tokio::time::timeout(Duration::from_secs(5), underlay.readable());
            ready.await.expect("all datagrams come").unwrap();
            underlay.receive(|source, datagram| {
                assert_eq!(source, to);
                lengths.push(datagram.len());
            });
        }
        assert_eq!(lengths, [3, 900, 900, 900, 5]);
        assert_eq!(underlay.drops(), SendDrops::default());
    }

    #[tokio::test]
    async fn both_families_carry_datagrams_whole() {
        exchange(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).await;
        if let Ok(peer) = std::net::UdpSocket::bind("[::1]:0") {
            exchange(peer).await;
        }
    }

    #[tokio::test]
    async fn refused_datagrams_are_counted_by_cause() {
        let mut underlay = Underlay::bind().unwrap();
        underlay.send("127.0.0.1:9".parse().unwrap(), &vec![0; 65_600]);
        assert_eq!(underlay.drops(), SendDrops { too_long: 1, ..SendDrops::default() });
        // A network without a route from a socket bound to nothing: class E.
        underlay.send("0.0.0.1:0".parse().unwrap(), b"x");
        assert_eq!(underlay.drops().refused, 1);
    }
}
