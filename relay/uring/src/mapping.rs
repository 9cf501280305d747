//! Anonymous memory that the kernel reads or writes while no Rust reference to it exists.

use std::io;
use std::ptr::NonNull;

/// Zeroed, page-aligned, private memory; returned to the system on drop. Pages that were never
/// touched cost nothing.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing
        // that exists.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    /// The address `offset` bytes in.
    ///
    /// # Panics
    ///
    /// If `offset` lies outside the mapping.
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.len, "offset {offset} in a mapping of {} bytes", self.len);
        // SAFETY: the assertion keeps the address inside the one mapped object.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY:
        // - `base` and `len` are what mmap gave, and nothing else unmaps them;
        // - every owner declares its mapping after whatever lets the kernel or Rust reach it, or drops it
        //   once its ring of buffers is unregistered and all of them are back, or its socket's receive
        //   is over.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
