//! Message headers (struct mmsghdr) for sendmmsg and for SENDMSG.

use std::ptr;

use crate::control::SegmentControl;
use crate::queue::Message;

/// Message headers and what they point to, one slot a message, written before each use.
#[derive(Debug)]
pub(crate) struct Headers {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    controls: Box<[SegmentControl]>,
}

impl Headers {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            headers: vec![empty(); slots].into(),
            iovecs: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; slots].into(),
            controls: vec![SegmentControl::new(0); slots].into(),
        }
    }

    /// Describes `message` in a slot. The header points into `message` and into this structure: the
    /// kernel may read it while both stay where they are and the slot is not written again.
    pub(crate) fn write(&mut self, slot: usize, message: &Message) -> *const libc::msghdr {
        self.iovecs[slot] = libc::iovec {
            iov_base: message.bytes.cast_mut().cast(),
            iov_len: message.len as usize,
        };
        let header = &mut self.headers[slot].msg_hdr;
        header.msg_name = message.to.as_ptr().cast_mut().cast();
        header.msg_namelen = message.to.len();
        header.msg_iov = &raw mut self.iovecs[slot];
        header.msg_iovlen = 1;
        if message.segment_size == 0 {
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
        } else {
            self.controls[slot] = SegmentControl::new(message.segment_size);
            header.msg_control = (&raw mut self.controls[slot]).cast();
            header.msg_controllen = SegmentControl::LEN as _;
        }
        header
    }

    /// The headers of the first `count` slots, for sendmmsg.
    pub(crate) fn first(&mut self, count: usize) -> &mut [libc::mmsghdr] {
        &mut self.headers[..count]
    }
}

/// A header that names nothing.
pub(crate) fn empty() -> libc::mmsghdr {
    // SAFETY: an mmsghdr is integers and pointers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}
