//! Ending a system call of another thread.

use std::io;

/// A thread whose long system call another thread can end, which then fails with EINTR. What comes
/// between two calls has no effect: repeat until the thread has seen its own flag.
#[derive(Debug, Clone, Copy)]
pub struct Interrupt {
    process: i32,
    thread: i32,
}

impl Interrupt {
    /// For this thread. SIGUSR1 is this process's to use from here on, and does nothing else.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn this_thread() -> io::Result<Self> {
        extern "C" fn nothing(_: libc::c_int) {}
        // SAFETY: all-zero bytes are a valid sigaction: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        // SAFETY: `action` lives, and its handler touches nothing, so it may run at any point.
        let set =
            unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: these take nothing and cannot fail.
        let (process, thread) = unsafe { (libc::getpid(), libc::gettid()) };
        Ok(Self { process, thread })
    }

    /// The thread, as /proc names it.
    #[must_use]
    pub fn thread(&self) -> u32 {
        self.thread as u32
    }

    /// Ends the call that the thread is in.
    pub fn send(&self) {
        // SAFETY: numbers only. Of a thread that has ended the kernel says so, and nothing happens.
        unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, libc::SIGUSR1) };
    }
}
