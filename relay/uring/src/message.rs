//! Message headers (struct mmsghdr) for sendmmsg and for SENDMSG.

use std::ptr;

use crate::control::SegmentControl;
use crate::outgoing::{Message, Part};
use crate::queue::chain;

/// Message headers and what they point to, one slot a message, written before each use.
#[derive(Debug)]
pub(crate) struct Headers {
    headers: Box<[libc::mmsghdr]>,
    /// One for each message: a chain's first has as many as the chain.
    iovecs: Box<[libc::iovec]>,
    iovecs_used: usize,
    controls: Box<[SegmentControl]>,
}

impl Headers {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            headers: vec![empty(); slots].into(),
            iovecs: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; slots].into(),
            iovecs_used: 0,
            controls: vec![SegmentControl::new(0); slots].into(),
        }
    }

    /// All slots may be written anew.
    pub(crate) fn clear(&mut self) {
        self.iovecs_used = 0;
    }

    /// Describes message `index`, and what is chained to it, in a slot. The header points into
    /// `messages`, to the messages' bytes, and into this structure: the kernel may read it while all
    /// of them stay where they are, and until [`clear`](Self::clear).
    ///
    /// # Panics
    ///
    /// If more is described than there are slots.
    pub(crate) fn write(
        &mut self,
        slot: usize,
        messages: &[Message],
        index: usize,
    ) -> *const libc::msghdr {
        let message = &messages[index];
        let start = self.iovecs_used;
        let mut len = 0;
        for piece in chain(messages, index) {
            self.iovecs[self.iovecs_used] = libc::iovec {
                iov_base: piece.bytes.cast_mut().cast(),
                iov_len: piece.len as usize,
            };
            self.iovecs_used += 1;
            len += piece.len;
        }
        let header = &mut self.headers[slot].msg_hdr;
        header.msg_name = message.to.as_ptr().cast_mut().cast();
        header.msg_namelen = message.to.len();
        header.msg_iov = &raw mut self.iovecs[start];
        header.msg_iovlen = (self.iovecs_used - start) as _;
        let datagram_len = message.datagram_len();
        if len <= datagram_len {
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
        } else {
            debug_assert!(message.part != Part::Later);
            self.controls[slot] = SegmentControl::new(datagram_len as u16);
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
