//! Ending a system call of another thread.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use signal_hook::consts::SIGUSR1;

/// A thread whose long system call another thread can end, which then fails with EINTR. What comes
/// between two calls has no effect: repeat until the thread has seen its own flag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interrupt {
    thread: Pthread,
    id: u32,
}

impl Interrupt {
    /// For this thread. SIGUSR1 is this process's to use from here on, and does nothing else.
    pub(crate) fn this_thread() -> anyhow::Result<Self> {
        signal_hook::flag::register(SIGUSR1, Arc::new(AtomicBool::new(false)))
            .context("handling SIGUSR1")?;
        let id = rustix::thread::gettid().as_raw_pid().unsigned_abs();
        Ok(Self { thread: pthread_self(), id })
    }

    /// The thread, as /proc names it.
    pub(crate) fn thread(self) -> u32 {
        self.id
    }

    /// Ends the call that the thread is in. It has not been joined yet.
    pub(crate) fn send(self) -> anyhow::Result<()> {
        pthread_kill(self.thread, Signal::SIGUSR1).context("interrupting a thread")
    }
}
