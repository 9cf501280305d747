//! An io_uring instance as a shard uses it: set up once, then push, enter, complete.

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, squeue};

/// How long dropping a ring waits for its receives to end.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// A ring and its registrations. Of the thread that made it: SINGLE_ISSUER lets no other enter, and
/// the pointer inside keeps this type from being sent to one.
pub(super) struct Ring {
    /// Kept because it remembers the ring's registered descriptor. Dropped before what it borrows.
    submitter: Submitter<'static>,
    uring: OwnedUring,
}

/// A ring at an address that does not move. A raw pointer because `submitter` borrows it.
struct OwnedUring(NonNull<IoUring>);

impl Ring {
    /// Makes a ring and registers `files` with it.
    ///
    /// # Errors
    ///
    /// The step that was refused, and the errno.
    pub(super) fn new(
        entries: u32,
        completions: u32,
        files: &[RawFd],
    ) -> Result<Self, (&'static str, io::Error)> {
        // DEFER_TASKRUN: the kernel receives only inside `enter`, on this thread (Linux 6.1).
        // SUBMIT_ALL: a send that fails does not hold up those behind it (Linux 5.18).
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_cqsize(completions)
            .build(entries)
            .map_err(|error| ("io_uring_setup", error))?;
        let uring = OwnedUring(NonNull::from(Box::leak(Box::new(uring))));
        // SAFETY: the ring stays at this address until `uring` drops, which outlives `submitter`, and
        // it is only ever borrowed shared.
        let submitter = unsafe { uring.0.as_ref() }.submitter();
        submitter.register_files(files).map_err(|error| ("registering sockets", error))?;
        Ok(Self { submitter, uring })
    }

    /// Registers a ring of provided buffers as a group.
    ///
    /// # Safety
    ///
    /// The `count` entries at `address`, and the buffers they name, stay mapped until the group is
    /// unregistered or this ring is dropped.
    pub(super) unsafe fn register_buffers(
        &mut self,
        group: u16,
        address: u64,
        count: u16,
    ) -> io::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.submitter.register_buf_ring_with_flags(address, count, group, 0) }
    }

    /// The kernel lets go of a group, which no operation uses.
    pub(super) fn unregister_buffers(&mut self, group: u16) -> io::Result<()> {
        self.submitter.unregister_buf_ring(group)
    }

    /// Saves a descriptor look-up an `enter`; a task has 16 places for it, and without one the ring
    /// works all the same.
    pub(super) fn register_descriptor(&mut self) {
        let _ = self.submitter.register_ring_fd();
    }

    pub(super) fn submission(&mut self) -> SubmissionQueue<'_> {
        // SAFETY: `&mut self`, borrowed by the result, means there is no other submission queue.
        unsafe { self.uring.0.as_ref().submission_shared() }
    }

    pub(super) fn completion(&mut self) -> CompletionQueue<'_> {
        // SAFETY: `&mut self`, borrowed by the result, means there is no other completion queue.
        unsafe { self.uring.0.as_ref().completion_shared() }
    }

    /// Queues an entry; whether there was room.
    ///
    /// # Safety
    ///
    /// What the entry points to stays valid until the operation completes.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.submission().push(entry) }.is_ok()
    }

    /// Entries the kernel has not consumed.
    pub(super) fn pending(&mut self) -> usize {
        self.submission().len()
    }

    /// Submits what is queued and, if told to, waits that long for a completion.
    ///
    /// The kernel may consume fewer entries than are queued: compare [`pending`](Self::pending).
    ///
    /// # Errors
    ///
    /// What the ring cannot recover from; a lack of memory, a signal and the end of the wait are no
    /// errors.
    pub(super) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let result = match wait {
            Some(timeout) => {
                let timeout = Timespec::from(timeout);
                self.submitter.submit_with_args(1, &SubmitArgs::new().timespec(&timeout))
            }
            None => self.submitter.submit(),
        };
        match result.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_)
            | Err((
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM),
                _,
            )) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }

    /// Cancels all operations under way; their last completions follow.
    ///
    /// # Errors
    ///
    /// What the ring cannot recover from; that nothing was under way is no error.
    pub(super) fn cancel_all(&mut self) -> io::Result<()> {
        let cancelled =
            self.submitter.register_sync_cancel(Some(CANCEL_TIMEOUT.into()), CancelBuilder::any());
        match cancelled.map_err(|error| (error.raw_os_error(), error)) {
            Ok(())
            | Err((
                Some(libc::ENOENT | libc::EALREADY | libc::ETIME | libc::EINTR | libc::ENOMEM),
                _,
            )) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }

    /// The kernel's head of a buffer ring: buffers it has ever taken, modulo 2¹⁶. Linux 6.8.
    #[cfg(test)]
    pub(super) fn buffer_head(&self, group: u16) -> io::Result<u16> {
        use std::os::fd::AsRawFd;
        const IORING_REGISTER_PBUF_STATUS: u32 = 26;
        /// `struct io_uring_buf_status`, linux/io_uring.h.
        #[repr(C)]
        struct Status {
            group: u32,
            head: u32,
            reserved: [u32; 8],
        }
        let mut status = Status { group: group.into(), head: 0, reserved: [0; 8] };
        // SAFETY: the ring is open, and the kernel writes one status to a live one.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.uring.0.as_ref().as_raw_fd(),
                IORING_REGISTER_PBUF_STATUS,
                &raw mut status,
                1,
            )
        };
        if result == 0 { Ok(status.head as u16) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closing a ring ends its operations and frees its files later, from a kernel worker
        // (io_uring/io_uring.c, `io_ring_exit_work`). Done by hand, nothing is left to touch the
        // buffers, and the port is free at once. ENOENT, nothing to cancel, is as good. Should it fail,
        // nothing is touched either: with DEFER_TASKRUN a receive is completed by `enter` on this thread
        // alone (io_uring_setup(2)), and the last one is below.
        let _ =
            self.submitter.register_sync_cancel(Some(CANCEL_TIMEOUT.into()), CancelBuilder::any());
        // What was cancelled lets go of its file when its deferred work runs.
        let _ = self.enter(Some(Duration::ZERO));
        let _ = self.submitter.unregister_files();
        // A registered descriptor keeps the ring open until the thread ends.
        let _ = self.submitter.unregister_ring_fd();
    }
}

impl Drop for OwnedUring {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a leaked box, and `submitter`, its only borrower, is gone.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}
