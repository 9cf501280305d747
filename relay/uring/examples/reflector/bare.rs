//! The bare recvmmsg and sendmmsg loop: the least that forwarding through a socket can cost.
#![expect(
    unsafe_code,
    reason = "recvmmsg(2) and sendmmsg(2) take addresses that the kernel reads and writes"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// As the relay's recvmmsg back end has them.
const BATCH: usize = 64;
/// The largest datagram or train.
const BUFFER_LEN: usize = 65_535;
/// Room for one UDP_GRO message: a header and an int, aligned.
const CONTROL_LEN: usize = 24;

/// Where a datagram goes: IPv4 address and port, as the kernel takes them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target(libc::sockaddr_in);

impl From<std::net::SocketAddrV4> for Target {
    fn from(address: std::net::SocketAddrV4) -> Self {
        Self(libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: address.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
            sin_zero: [0; 8],
        })
    }
}

/// Has the kernel join datagrams on receive, and gives the socket buffers of so many bytes, as the
/// relay asks for.
///
/// # Errors
///
/// What setsockopt says; EPERM without CAP_NET_ADMIN.
pub(crate) fn prepare(socket: &impl AsFd, receive: usize, send: usize) -> io::Result<()> {
    let options = [
        (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, receive as i32),
        (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, send as i32),
        (libc::SOL_UDP, libc::UDP_GRO, 1),
    ];
    for (level, name, value) in options {
        let len = size_of::<i32>() as u32;
        let socket = socket.as_fd().as_raw_fd();
        // SAFETY: the kernel reads one int from a live int; the descriptor is open while borrowed.
        let set = unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), len) };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// Buffers and headers for a batch, allocated once.
#[derive(Debug)]
pub(crate) struct Batch {
    memory: Box<[u8]>,
    controls: Box<[Control]>,
    train_controls: Box<[Control]>,
    vectors: Box<[libc::iovec]>,
    received: Box<[libc::mmsghdr]>,
    sent: Box<[libc::mmsghdr]>,
}

impl Batch {
    /// Empty buffers.
    pub(crate) fn new() -> Self {
        // SAFETY: all-zero bytes are a valid mmsghdr: null pointers and zero lengths.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            memory: vec![0; BATCH * BUFFER_LEN].into(),
            controls: vec![Control([0; CONTROL_LEN]); BATCH].into(),
            train_controls: vec![Control([0; CONTROL_LEN]); BATCH].into(),
            vectors: vec![vector; BATCH].into(),
            received: vec![header; BATCH].into(),
            sent: vec![header; BATCH].into(),
        }
    }

    /// Waits for datagrams and sends each, or each train whole, to the target that `choose` names.
    /// What cannot be sent is lost.
    ///
    /// # Errors
    ///
    /// What recvmmsg says.
    pub(crate) fn forward<'a>(
        &mut self,
        socket: &impl AsFd,
        choose: impl Fn(&[u8]) -> Option<&'a Target>,
    ) -> io::Result<()> {
        let socket = socket.as_fd().as_raw_fd();
        let received = self.receive(socket)?;
        let mut count = 0;
        for index in 0..received {
            let len = self.received[index].msg_len as usize;
            let bytes = &self.memory[index * BUFFER_LEN..][..len];
            let Some(target) = choose(bytes) else { continue };
            let control = match self.segment_size(index).filter(|size| usize::from(*size) < len) {
                None => None,
                Some(size) => {
                    self.train_controls[count] = segment_control(size);
                    Some(std::ptr::from_mut(&mut self.train_controls[count]))
                }
            };
            self.vectors[index].iov_len = len;
            let header = &mut self.sent[count].msg_hdr;
            header.msg_name = std::ptr::from_ref(&target.0).cast_mut().cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = control.map_or(std::ptr::null_mut(), <*mut Control>::cast);
            header.msg_controllen = if control.is_some() { CONTROL_LEN } else { 0 };
            count += 1;
        }
        self.send(socket, count);
        Ok(())
    }

    fn receive(&mut self, socket: i32) -> io::Result<usize> {
        let base = self.memory.as_mut_ptr();
        for (index, header) in self.received.iter_mut().enumerate() {
            self.vectors[index] = libc::iovec {
                iov_base: base.wrapping_add(index * BUFFER_LEN).cast(),
                iov_len: BUFFER_LEN,
            };
            let header = &mut header.msg_hdr;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[index]).cast();
            header.msg_controllen = CONTROL_LEN;
        }
        let headers = self.received.as_mut_ptr();
        // SAFETY:
        // - each header's vector and control point into boxes of `self` that are borrowed mutably
        //   and of which no other part is read during the call;
        // - vector `index` covers buffer `index` of `memory`, which holds BATCH of them.
        let received = unsafe {
            libc::recvmmsg(
                socket,
                headers,
                BATCH as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        if received < 0 { Err(io::Error::last_os_error()) } else { Ok(received as usize) }
    }

    /// The length of a train's datagrams, if this is one.
    fn segment_size(&self, index: usize) -> Option<u16> {
        // One message at most is asked for: cmsg_len, level, type, and an int.
        let control = &self.controls[index].0;
        let is_train = self.received[index].msg_hdr.msg_controllen > 0
            && control[8..12] == libc::SOL_UDP.to_ne_bytes()
            && control[12..16] == libc::UDP_GRO.to_ne_bytes();
        let size: [u8; 4] = *control[16..].first_chunk()?;
        is_train.then(|| i32::from_ne_bytes(size) as u16)
    }

    fn send(&mut self, socket: i32, count: usize) {
        let mut first = 0;
        while first < count {
            let headers = self.sent[first..count].as_mut_ptr();
            // SAFETY:
            // - headers `first..count` point at vectors and controls in boxes of `self`, and at
            //   targets borrowed for the caller's lifetime, all alive and only read by the call;
            // - a vector's length is what was received into its buffer.
            let sent = unsafe {
                libc::sendmmsg(socket, headers, (count - first) as u32, libc::MSG_DONTWAIT)
            };
            // The first of those left was refused: go on after it.
            first += usize::try_from(sent).unwrap_or(0).max(1);
        }
    }
}

/// The message that has the kernel cut a train (udp(7), UDP_SEGMENT).
fn segment_control(size: u16) -> Control {
    let mut control = Control([0; CONTROL_LEN]);
    let header_len = size_of::<libc::cmsghdr>();
    control.0[0..8].copy_from_slice(&(header_len + size_of::<u16>()).to_ne_bytes());
    control.0[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    control.0[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
    control.0[header_len..header_len + 2].copy_from_slice(&size.to_ne_bytes());
    control
}

const _: () = assert!(size_of::<libc::cmsghdr>() == 16 && size_of::<usize>() == 8);
