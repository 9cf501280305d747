//! What the threads let the slow side see.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use lanrage_relay_core::{BinderCounters, Counters, Draining};
use lanrage_relay_table::Counts;
use lanrage_relay_uring as uring;

use crate::handover::ShardState;
use crate::queues::Queues;
use crate::role::Role;
use crate::streams::StreamsView;

/// One shard's counts. Only the shard writes, without a lock; a reader may see the words of two
/// batches mixed, so what must add up is added up by the shard.
#[derive(Debug)]
pub(crate) struct ShardView {
    pub(crate) role: Role,
    words: [AtomicU64; Counters::WORDS],
    /// What the shard's identities are off by.
    pub(crate) skew: AtomicU64,
    /// What sending is off by: planned, less sent, less failed, once nothing is queued.
    pub(crate) send_skew: AtomicU64,
    /// Datagrams for streams, planned beside what the kernel's side sends.
    pub(crate) to_streams: AtomicU64,
    /// Of these, those that found no room on the way to the streams' thread.
    pub(crate) streams_refused: AtomicU64,
    /// When the shard last ended a turn.
    pub(crate) alive_ms: AtomicU64,
    /// What the kernel's side of the shard counts.
    pub(crate) kernel: Arc<uring::Counters>,
}

impl ShardView {
    pub(crate) fn new(role: Role, kernel: Arc<uring::Counters>) -> Self {
        Self {
            role,
            words: std::array::from_fn(|_| AtomicU64::new(0)),
            skew: AtomicU64::new(0),
            send_skew: AtomicU64::new(0),
            to_streams: AtomicU64::new(0),
            streams_refused: AtomicU64::new(0),
            alive_ms: AtomicU64::new(0),
            kernel,
        }
    }

    /// What the process before has counted.
    pub(crate) fn resume(&self, before: &ShardState) {
        for (shared, word) in self.words.iter().zip(before.counters.to_words()) {
            shared.store(word, Ordering::Relaxed);
        }
        self.to_streams.store(before.to_streams, Ordering::Relaxed);
        self.streams_refused.store(before.streams_refused, Ordering::Relaxed);
    }

    /// What the next process goes on from.
    pub(crate) fn leave(&self, counters: &Counters, kernel: uring::Tally) -> ShardState {
        ShardState {
            counters: *counters,
            kernel,
            to_streams: self.to_streams.load(Ordering::Relaxed),
            streams_refused: self.streams_refused.load(Ordering::Relaxed),
        }
    }

    /// The end of a turn; `is_idle` when it received and sent nothing.
    pub(crate) fn publish(&self, counters: &Counters, now_ms: u64, is_idle: bool) {
        self.alive_ms.store(now_ms, Ordering::Relaxed);
        if is_idle {
            return self.publish_sent();
        }
        self.publish_counters(counters, counters.received.abs_diff(self.kernel.rx_segments.get()));
    }

    /// The end of a pass of the shard of streams: nothing comes from sockets, and all is sent.
    pub(crate) fn publish_streams(&self, counters: &Counters, now_ms: u64) {
        self.alive_ms.store(now_ms, Ordering::Relaxed);
        self.publish_counters(counters, 0);
        self.publish_sent();
    }

    fn publish_sent(&self) {
        let kernel = &self.kernel;
        let done = kernel.tx_datagrams.get() + kernel.tx_failed_total();
        self.send_skew.store(kernel.tx_planned.get().abs_diff(done), Ordering::Relaxed);
    }

    fn publish_counters(&self, counters: &Counters, received_skew: u64) {
        for (shared, word) in self.words.iter().zip(counters.to_words()) {
            shared.store(word, Ordering::Relaxed);
        }
        let planned = self.kernel.tx_planned.get() + self.to_streams.load(Ordering::Relaxed);
        let skew = counters.skew() + received_skew + counters.planned.abs_diff(planned);
        self.skew.store(skew, Ordering::Relaxed);
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters::from_words(&std::array::from_fn(|at| self.words[at].load(Ordering::Relaxed)))
    }
}

/// The binder's counts, a tenth of a second old at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BinderView {
    pub(crate) counters: BinderCounters,
    pub(crate) counts: Counts,
    pub(crate) skew: u64,
    pub(crate) draining: Option<Draining>,
    pub(crate) bans: usize,
    pub(crate) caps: usize,
    pub(crate) revocations: usize,
    pub(crate) sent: u64,
    pub(crate) send_failed: u64,
    pub(crate) alive_ms: u64,
}

/// Everything that metrics and readiness look at.
#[derive(Debug, Default)]
pub(crate) struct Published {
    binder: Mutex<Option<BinderView>>,
    shards: Mutex<Vec<Arc<ShardView>>>,
    streams: Mutex<Option<Arc<StreamsView>>>,
    /// The stream from control lives.
    pub(crate) has_control: AtomicBool,
    /// The relay ends with the drain under way.
    pub(crate) exits_drained: AtomicBool,
    /// Processes that have taken over from another.
    pub(crate) upgrades: AtomicU64,
    /// Processes that should have, and did not.
    pub(crate) upgrades_failed: AtomicU64,
    /// CHALLENGE can be sent.
    pub(crate) has_certificate: AtomicBool,
    /// Why what control says is not kept on disk, while it is not.
    unwritten: Mutex<Option<String>>,
    /// Why control does not take this relay, while it does not.
    refused: Mutex<Option<String>>,
    queues: OnceLock<Arc<Queues>>,
    /// When control last said something, in seconds since 1970; at the start, when what it said was
    /// written.
    pub(crate) heard_at: AtomicU64,
    /// Seconds since 1970; 0 without a certificate.
    pub(crate) certificate_not_after: AtomicU64,
}

impl Published {
    pub(crate) fn set_binder(&self, view: BinderView) {
        *lock(&self.binder) = Some(view);
    }

    pub(crate) fn binder(&self) -> Option<BinderView> {
        *lock(&self.binder)
    }

    pub(crate) fn set_unwritten(&self, why: Option<String>) {
        *lock(&self.unwritten) = why;
    }

    pub(crate) fn unwritten(&self) -> Option<String> {
        lock(&self.unwritten).clone()
    }

    pub(crate) fn set_refused(&self, why: Option<String>) {
        *lock(&self.refused) = why;
    }

    pub(crate) fn refused(&self) -> Option<String> {
        lock(&self.refused).clone()
    }

    pub(crate) fn set_queues(&self, queues: Arc<Queues>) {
        // Once, when the threads are started.
        let _ = self.queues.set(queues);
    }

    pub(crate) fn queues(&self) -> Option<Arc<Queues>> {
        self.queues.get().cloned()
    }

    pub(crate) fn add_shard(&self, view: Arc<ShardView>) {
        lock(&self.shards).push(view);
    }

    pub(crate) fn set_streams(&self, view: Arc<StreamsView>) {
        *lock(&self.streams) = Some(view);
    }

    /// `None` where no streams are served.
    pub(crate) fn streams(&self) -> Option<Arc<StreamsView>> {
        lock(&self.streams).clone()
    }

    pub(crate) fn shards(&self) -> Vec<Arc<ShardView>> {
        lock(&self.shards).clone()
    }

    /// With the streams' thread, last, if there is one.
    pub(crate) fn all_shards(&self) -> Vec<Arc<ShardView>> {
        let streams = self.streams().map(|view| view.shard.clone());
        self.shards().into_iter().chain(streams).collect()
    }
}

/// Whole values are stored under these locks, so a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
