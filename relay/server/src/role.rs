//! What a forwarding thread is for, and where and how urgently it runs.

use std::fmt;

use rustix::thread::CpuSet;

/// Of the thread for all but data: where CPU time is short, each shard gets 9.3 times as much
/// (kernel/sched/core.c, `sched_prio_to_weight`), and is not waited for when it wakes.
const CONTROL_NICE: i32 = 10;

/// One of the threads that forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Forwards data, on a core of its own.
    Shard(usize),
    /// Decides on everything else, after the shards.
    Control,
}

impl Role {
    /// Gives the calling thread its place. A thread that is refused it works all the same.
    pub(crate) fn settle(self, cpus: &[usize]) {
        match self {
            Self::Shard(number) if !cpus.is_empty() => pin(cpus[number % cpus.len()]),
            Self::Shard(_) => {}
            Self::Control => {
                // Linux knows a nice value for each thread: 0 is the caller's (setpriority(2)).
                if let Err(error) = rustix::process::setpriority_process(None, CONTROL_NICE) {
                    tracing::warn!(%error, "the thread for control frames runs as urgently as data");
                }
            }
        }
    }
}

/// The thread's name.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shard(number) => write!(f, "shard-{number}"),
            Self::Control => f.write_str("control"),
        }
    }
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(cpu, %error, "a shard is not pinned");
    }
}
