//! The provided buffer ring: receive buffers that the kernel picks from and a [`Buffer`] gives back.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::mapping::Mapping;

/// Buffers and the ring that offers them to the kernel: io_uring_register_buf_ring(3).
///
/// Every buffer is at any time either the kernel's, or owned by exactly one [`Buffer`].
#[derive(Debug)]
pub(super) struct BufferRing {
    count: u16,
    stride: usize,
    /// Buffers ever given to the kernel, modulo 2¹⁶: what the ring's tail shows.
    tail: Cell<u16>,
    entries: Mapping,
    buffers: Mapping,
}

/// A buffer the kernel has filled. Dropping it gives the buffer back.
#[derive(Debug)]
pub(super) struct Buffer {
    ring: Rc<BufferRing>,
    id: u16,
}

impl BufferRing {
    /// `count` buffers, a power of two up to 32,768, of `stride` bytes, all the kernel's.
    pub(super) fn new(count: u16, stride: usize) -> io::Result<Rc<Self>> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "{count} buffers");
        let ring = Self {
            count,
            stride,
            tail: Cell::new(0),
            entries: Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?,
            buffers: Mapping::new(usize::from(count) * stride)?,
        };
        for id in 0..count {
            ring.give(id);
        }
        Ok(Rc::new(ring))
    }

    /// The page-aligned address to register.
    pub(super) fn address(&self) -> u64 {
        self.entries.at(0).as_ptr().addr() as u64
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Buffers that no [`Buffer`] owns.
    pub(super) fn free(self: &Rc<Self>) -> usize {
        // Each buffer in use holds the ring once, and so does the ring's owner.
        usize::from(self.count) - (Rc::strong_count(self) - 1)
    }

    /// Owns the buffer a completion names; `None` if there is no such buffer.
    ///
    /// # Safety
    ///
    /// `id` comes from a completion of a receive from this ring's group, and is taken once for it.
    pub(super) unsafe fn take(self: &Rc<Self>, id: u16) -> Option<Buffer> {
        (id < self.count).then(|| Buffer { ring: Rc::clone(self), id })
    }

    /// Offers a buffer that nobody owns to the kernel.
    fn give(&self, id: u16) {
        let tail = self.tail.get();
        let slot = usize::from(tail & (self.count - 1));
        let entry = self.entries.at(slot * size_of::<BufRingEntry>()).cast::<BufRingEntry>();
        let address = self.buffers.at(usize::from(id) * self.stride);
        // SAFETY:
        // - the slot lies in the mapping, aligned, and zero is a value of its integers;
        // - the kernel reads slots between head and tail only, and this one is not: there are as many
        //   slots as buffers, and this buffer is in none;
        // - the setters leave alone the field of slot 0 that is the ring's tail, which the kernel only
        //   reads, in `enter` on this thread: not while this reference to the slot lives.
        unsafe {
            let entry = &mut *entry.as_ptr();
            entry.set_addr(address.as_ptr().addr() as u64);
            entry.set_len(self.stride as u32);
            entry.set_bid(id);
        }
        self.tail.set(tail.wrapping_add(1));
        self.shared_tail().store(self.tail.get(), Ordering::Release);
    }

    /// The tail the kernel reads; the release store shows it the slots before.
    fn shared_tail(&self) -> &AtomicU16 {
        // SAFETY:
        // - `tail` computes the address of a field of slot 0, which is mapped and zeroed or written;
        // - the field is an aligned u16 that both sides access atomically for as long as `self` lives.
        unsafe {
            let base = self.entries.at(0).cast::<BufRingEntry>();
            AtomicU16::from_ptr(BufRingEntry::tail(base.as_ptr()).cast_mut())
        }
    }

    /// Buffers given to the kernel, modulo 2¹⁶.
    #[cfg(test)]
    pub(super) fn tail(&self) -> u16 {
        self.tail.get()
    }
}

impl Buffer {
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: as in `bytes_mut`; a shared reference borrows `self`.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.ring.stride) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY:
        // - the `stride` bytes from `start` are mapped, zeroed or written by the kernel;
        // - the kernel gave the buffer up with its completion and does not write to it before `give`;
        // - no other `Buffer` has this id, and `&mut self` makes the reference unique.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.ring.stride) }
    }

    fn start(&self) -> std::ptr::NonNull<u8> {
        self.ring.buffers.at(usize::from(self.id) * self.ring.stride)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.ring.give(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_offered_again() {
        let ring = BufferRing::new(4, 128).unwrap();
        assert_eq!((ring.free(), ring.tail()), (4, 4));
        // SAFETY: no kernel takes part, so every id is free to take once.
        let (first, second) = unsafe { (ring.take(0), ring.take(3)) };
        assert_eq!((ring.free(), ring.tail()), (2, 4));
        drop(first);
        assert_eq!((ring.free(), ring.tail()), (3, 5));
        drop(second);
        assert_eq!((ring.free(), ring.tail()), (4, 6));
        // SAFETY: as above.
        assert!(unsafe { ring.take(4) }.is_none(), "no such buffer");
    }

    #[test]
    fn the_tail_wraps() {
        let ring = BufferRing::new(2, 128).unwrap();
        for _ in 0..70_000 {
            // SAFETY: as above: taken once, and dropped at once.
            drop(unsafe { ring.take(1) });
        }
        assert_eq!(ring.tail(), (70_002 % 65_536) as u16);
        assert_eq!(ring.shared_tail().load(Ordering::Acquire), ring.tail());
    }
}
