//! Bytes a queue keeps of what does not stay where it is.

use std::io;

use crate::mapping::Mapping;

/// Room between two submissions: the largest datagram fits several times.
pub(crate) const COPIES_LEN: usize = 256 * 1024;
/// Beyond that, room for one gathered train that goes again in single datagrams.
const AGAIN_LEN: usize = 64 * 1024;

/// Memory that is filled from its start and freed all at once.
#[derive(Debug)]
pub(crate) struct Copies {
    used: usize,
    again_used: usize,
    memory: Mapping,
}

impl Copies {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { used: 0, again_used: 0, memory: Mapping::new(COPIES_LEN + AGAIN_LEN)? })
    }

    pub(crate) fn fits_ever(&self, len: usize) -> bool {
        len < COPIES_LEN
    }

    /// A datagram without bytes needs an address to point at, too: one more is asked for.
    pub(crate) fn fits(&self, len: usize) -> bool {
        self.used + len < COPIES_LEN
    }

    /// Whether so much fits what goes again.
    pub(crate) fn fits_again(&self, len: usize) -> bool {
        self.again_used + len <= AGAIN_LEN
    }

    /// Copies bytes, for which there is room.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> *const u8 {
        assert!(self.fits(bytes.len()));
        let at = self.used;
        self.used += bytes.len();
        // SAFETY: `bytes` is a borrowed slice.
        unsafe { self.write(at, bytes.as_ptr(), bytes.len()) }
    }

    /// Copies pieces to one place, for which there is room.
    pub(crate) fn push_all<'p>(&mut self, pieces: impl Iterator<Item = &'p [u8]>) -> *const u8 {
        let start = self.memory.at(self.used).as_ptr().cast_const();
        for piece in pieces {
            self.push(piece);
        }
        start
    }

    /// Copies `len` bytes for what goes again, for which there is room.
    ///
    /// # Safety
    ///
    /// They are readable at `from`. Others may hold references to them: none is made here.
    pub(crate) unsafe fn push_again(&mut self, from: *const u8, len: usize) -> *const u8 {
        assert!(self.fits_again(len));
        let at = COPIES_LEN + self.again_used;
        self.again_used += len;
        // SAFETY: the caller's promise.
        unsafe { self.write(at, from, len) }
    }

    /// Frees what was copied for what goes again.
    pub(crate) fn free_again(&mut self) {
        self.again_used = 0;
    }

    /// Frees all.
    pub(crate) fn free(&mut self) {
        self.used = 0;
        self.again_used = 0;
    }

    /// # Safety
    ///
    /// `len` bytes are readable at `from`.
    unsafe fn write(&self, at: usize, from: *const u8, len: usize) -> *const u8 {
        let copy = self.memory.at(at).as_ptr();
        // SAFETY:
        // - the callers have seen to it that the copy lies in the mapping;
        // - this part of it was free: no message of the queue refers to it, for a copy is made when
        //   there is room for all its messages, so the kernel does not read it, and `from` is not in it.
        unsafe { copy.copy_from_nonoverlapping(from, len) };
        copy
    }
}
