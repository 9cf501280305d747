//! One socket's batch of receive buffers, filled by recvmmsg.

use std::io;
use std::os::fd::RawFd;

use crate::address::ADDRESS_LEN;
use crate::arrival::{Description, MAX_PAYLOAD};
use crate::control::RECEIVE_LEN;
use crate::mapping::Mapping;
use crate::message;
use crate::sockets::SocketId;

/// Buffers start at different cache sets: the step is an odd number of cache lines.
const STRIDE: usize = MAX_PAYLOAD.next_multiple_of(64) + 64;
const _: () = assert!(STRIDE / 64 % 2 == 1);

#[derive(Debug)]
pub(super) struct Receiver {
    socket: RawFd,
    headers: Box<[libc::mmsghdr]>,
    slots: Box<[Slot]>,
    /// Slots the last call wrote to, whose lengths must be set anew.
    used: usize,
    has_received: bool,
    /// The memory `slots` point to.
    buffers: Mapping,
}

/// What one header points to.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
struct Slot {
    control: [u8; RECEIVE_LEN],
    name: [u8; ADDRESS_LEN],
    iovec: libc::iovec,
}

impl Receiver {
    /// `socket` must stay open as long as the receiver is used; `batch` is at least 1.
    pub(super) fn new(socket: RawFd, batch: usize) -> io::Result<Self> {
        let buffers = Mapping::new(batch * STRIDE)?;
        let slot = |slot| Slot {
            control: [0; RECEIVE_LEN],
            name: [0; ADDRESS_LEN],
            iovec: libc::iovec {
                iov_base: buffers.at(slot * STRIDE).as_ptr().cast(),
                iov_len: MAX_PAYLOAD,
            },
        };
        let slots = (0..batch).map(slot).collect();
        Ok(Self {
            socket,
            headers: vec![message::empty(); batch].into(),
            slots,
            used: batch,
            has_received: false,
            buffers,
        })
    }

    /// How many arrivals a call takes.
    pub(super) fn batch(&self) -> usize {
        self.slots.len()
    }

    /// The last call took as many as it could.
    pub(super) fn was_filled(&self) -> bool {
        self.used == self.slots.len() && self.has_received
    }

    /// Takes twice as many from now on, at most `batch_max`; as many as before if there is no memory.
    pub(super) fn grow(&mut self, batch_max: usize) {
        if let Ok(larger) = Self::new(self.socket, batch_max.min(2 * self.batch())) {
            *self = larger;
        }
    }

    /// Fills the slots from 0 up; how many.
    pub(super) fn receive(&mut self) -> io::Result<usize> {
        for (header, slot) in self.headers.iter_mut().zip(&mut self.slots).take(self.used) {
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut slot.name).cast();
            header.msg_namelen = ADDRESS_LEN as libc::socklen_t;
            header.msg_control = (&raw mut slot.control).cast();
            header.msg_controllen = RECEIVE_LEN as _;
            header.msg_iov = &raw mut slot.iovec;
            header.msg_iovlen = 1;
        }
        self.used = 0;
        // SAFETY:
        // - every header points to its own slot, and each slot to its own STRIDE of `buffers`, with
        //   the lengths of those: written anew above, but for those that the kernel has not filled, and
        //   so not changed, since; all are owned by `self` and live through the call;
        // - `&mut self` means that no payload of the former batch is borrowed.
        let count = unsafe {
            libc::recvmmsg(
                self.socket,
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        self.used = count as usize;
        self.has_received = true;
        Ok(self.used)
    }

    pub(super) fn description(&self, socket: SocketId, slot: usize) -> Description<'_> {
        let header = &self.headers[slot];
        let Slot { name, control, .. } = &self.slots[slot];
        Description {
            socket,
            name: &name[..ADDRESS_LEN.min(header.msg_hdr.msg_namelen as usize)],
            control: &control[..RECEIVE_LEN.min(header.msg_hdr.msg_controllen as _)],
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            len: MAX_PAYLOAD.min(header.msg_len as usize),
        }
    }

    /// The first `len` bytes of a slot's buffer.
    pub(super) fn payload(&mut self, slot: usize, len: usize) -> &mut [u8] {
        assert!(len <= MAX_PAYLOAD);
        let start = self.buffers.at(slot * STRIDE);
        // SAFETY:
        // - `len` bytes from `start` lie within the slot's STRIDE of the mapping, zeroed or written
        //   by the kernel;
        // - `&mut self` makes this the only reference, and keeps `receive` from being called.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) }
    }
}
