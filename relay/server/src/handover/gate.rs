use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};

/// How long a parked thread takes to see that the relay stops.
const PARKED_MAX: Duration = Duration::from_millis(50);

/// Where threads wait while another process may take their work over. What each leaves is a `T`.
#[derive(Debug)]
pub(crate) struct Gate<T> {
    /// Even: open. Each closing and each opening adds 1.
    turn: AtomicU64,
    lock: Mutex<()>,
    opened: Condvar,
    reports: (Sender<Report<T>>, Receiver<Report<T>>),
}

/// Of which closing, by which thread, what it leaves.
type Report<T> = (u64, usize, T);

impl<T> Gate<T> {
    pub(crate) fn open() -> Self {
        Self::at(0)
    }

    /// Nobody passes before [`Gate::reopen`].
    pub(crate) fn closed() -> Self {
        Self::at(1)
    }

    fn at(turn: u64) -> Self {
        Self {
            turn: AtomicU64::new(turn),
            lock: Mutex::default(),
            opened: Condvar::new(),
            reports: unbounded(),
        }
    }

    /// Whether the thread is to leave what it has, and wait.
    pub(crate) fn is_closed(&self) -> bool {
        self.turn.load(Ordering::Relaxed) % 2 == 1
    }

    /// Thread `number` has stopped and leaves `report`; returns when it may go on, or should end.
    pub(crate) fn wait(&self, number: usize, report: T, stop: &AtomicBool) {
        let turn = self.turn.load(Ordering::Acquire);
        // The other end is a field of this.
        let _ = self.reports.0.send((turn, number, report));
        self.pass(stop);
    }

    /// Waits while the gate is closed.
    pub(crate) fn pass(&self, stop: &AtomicBool) {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.is_closed() && !stop.load(Ordering::Relaxed) {
            let waited = self.opened.wait_timeout(guard, PARKED_MAX);
            guard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Closes the gate and waits for all `threads`; `None`: not all have stopped in time.
    pub(crate) fn close(
        &self,
        threads: usize,
        deadline: Instant,
        wake: impl FnOnce(),
    ) -> Option<Vec<T>> {
        let turn = self.turn.fetch_add(1, Ordering::AcqRel) + 1;
        wake();
        let mut left: Vec<Option<T>> = (0..threads).map(|_| None).collect();
        while left.iter().any(Option::is_none) {
            let (of, number, report) = self.reports.1.recv_deadline(deadline).ok()?;
            // Of a closing before, which was given up.
            if of == turn {
                left[number] = Some(report);
            }
        }
        left.into_iter().collect()
    }

    pub(crate) fn reopen(&self) {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closed() {
            self.turn.fetch_add(1, Ordering::AcqRel);
        }
        self.opened.notify_all();
    }
}
