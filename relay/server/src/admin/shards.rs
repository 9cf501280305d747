use std::sync::atomic::Ordering;

use lanrage_relay_core::{Class, DropReason};

use super::api::{Queues, ShardRow};
use super::{Admin, Refused};
use crate::published::ShardView;
use crate::role::Role;

impl Admin {
    pub(super) fn shards(&self) -> Result<Vec<ShardRow>, Refused> {
        let now_ms = self.health.clock.ms();
        let all = self.health.published.all_shards();
        Ok(all.iter().map(|shard| row(shard, now_ms)).collect())
    }

    /// What waits for the binder.
    pub(super) fn queues(&self) -> Queues {
        let Some(queues) = self.health.published.queues() else { return Queues::default() };
        Queues {
            activations: queues.activations.len(),
            established: queues.of(Class::Established).len(),
            hellos: queues.of(Class::Hello).len(),
            binds: queues.of(Class::Bind).len(),
        }
    }
}

fn row(view: &ShardView, now_ms: u64) -> ShardRow {
    let (core, kernel) = (view.counters(), &view.kernel);
    ShardRow {
        shard: match view.role {
            Role::Shard(number) => number.to_string(),
            Role::Control => "control".to_owned(),
            Role::Streams => "streams".to_owned(),
        },
        last_turn_ms: now_ms.saturating_sub(view.alive_ms.load(Ordering::Relaxed)),
        batches: kernel.batches.get(),
        arrivals: kernel.rx_arrivals.get(),
        datagrams: core.received,
        batch_sizes: kernel.batch_sizes.buckets().into(),
        train_lengths: kernel.train_lengths.buckets().into(),
        dropped: DropReason::all().map(|reason| core.dropped_for(reason)).sum(),
        kernel_drops: kernel.rx_kernel_drops.get(),
        sent: kernel.tx_datagrams.get(),
        send_failures: kernel.tx_failed_total(),
        syscalls: kernel.syscalls.get(),
        pool_exhausted: kernel.enobufs.get(),
        gso_disabled_sockets: kernel.gso_disabled_sockets.get(),
        gso_barred_destinations: kernel.gso_barred_destinations.get(),
        skew: view.skew.load(Ordering::Relaxed) + view.send_skew.load(Ordering::Relaxed),
    }
}
