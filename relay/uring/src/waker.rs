//! Ends a shard's wait from another thread.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Ends the current or the next wait of a shard's turn. Clones wake the same shard.
#[derive(Debug, Clone)]
pub struct Waker(Arc<File>);

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no memory.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self(Arc::new(File::from(descriptor))))
    }

    /// Wakes the shard. Wake-ups before it looks count as one.
    pub fn wake(&self) {
        // Fails only with EAGAIN at 2⁶⁴ - 2 unseen wake-ups (eventfd(2)), and then it is readable.
        let _ = (&*self.0).write(&1u64.to_ne_bytes());
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Forgets all wake-ups so far; whether there were any.
    pub(crate) fn clear(&self) -> bool {
        (&*self.0).read(&mut [0; 8]).is_ok()
    }
}
