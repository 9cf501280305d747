//! What a forwarding thread is for, and where and how urgently it runs.

use std::fmt;

use rustix::thread::CpuSet;

/// Of the thread for all but data: where CPU time is short, each shard gets 9.3 times as much
/// (kernel/sched/core.c, `sched_prio_to_weight`), and is not waited for when it wakes.
const CONTROL_NICE: i32 = 10;

/// Of the binder: under a flood it takes all the time it is given, 300 µs at a time. Where it shares
/// a core with a shard, that one gets 3.1 times as much.
const BINDER_NICE: i32 = 5;

/// One of the threads that forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Forwards data, on a core of its own.
    Shard(usize),
    /// Decides on everything else, after the shards.
    Control,
    /// Forwards what comes by streams.
    Streams,
}

impl Role {
    /// Gives the calling thread its place. A thread that is refused it works all the same.
    pub(crate) fn settle(self, cpus: &[usize]) {
        match self {
            Self::Shard(number) if !cpus.is_empty() => pin(cpus[number % cpus.len()]),
            Self::Shard(_) | Self::Streams => {}
            Self::Control => yield_to_shards("control", CONTROL_NICE),
        }
    }
}

/// The thread's name.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shard(number) => write!(f, "shard-{number}"),
            Self::Control => f.write_str("control"),
            Self::Streams => f.write_str("streams"),
        }
    }
}

/// Gives the calling thread the binder's place.
pub(crate) fn settle_binder() {
    yield_to_shards("binder", BINDER_NICE);
}

fn yield_to_shards(thread: &str, nice: i32) {
    // Linux knows a nice value for each thread: 0 is the caller's (setpriority(2)).
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::warn!(thread, %error, "a thread for less urgent work runs as urgently as data");
    }
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(cpu, %error, "a shard is not pinned");
    }
}
