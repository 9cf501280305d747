use std::sync::atomic::Ordering;

use lanrage_relay_core::{DropReason, Fault};
use lanrage_relay_uring::SendFailure;

use super::page::{Distribution, Metric, counter, gauge, histogram};

/// What the threads that forward count.
pub(super) const METRICS: &[Metric] = &[
    counter(
        "packets_received_total",
        "Datagrams received; a train counts each of its segments.",
        |s, out| out.value(s.core(|c| c.received)),
    ),
    counter("bytes_received_total", "Payload bytes received.", |s, out| {
        out.value(s.kernel(|k| &k.rx_bytes));
    }),
    counter(
        "packets_forwarded_total",
        "Datagrams received and sent on, by how many members they were for.",
        |s, out| {
            out.labelled(&[("to", "member")], s.core(|c| c.unicast));
            out.labelled(&[("to", "everyone")], s.core(|c| c.broadcast));
            out.labelled(&[("to", "self")], s.core(|c| c.self_addressed));
            out.labelled(&[("to", "relay")], s.core(|c| c.to_relay));
        },
    ),
    counter(
        "packets_from_relays_total",
        "Of the datagrams forwarded, those that came from other relays.",
        |s, out| out.value(s.core(|c| c.from_relay)),
    ),
    counter(
        "mesh_absent_total",
        "Answers of other relays: a member has no lease there.",
        |s, out| out.value(s.core(|c| c.absent)),
    ),
    counter("packets_answered_total", "STUN requests answered.", |s, out| {
        out.value(s.core(|c| c.answered));
    }),
    counter(
        "packets_to_control_total",
        "Datagrams received and handed to the binder.",
        |s, out| out.value(s.core(|c| c.to_control)),
    ),
    counter(
        "packets_dropped_total",
        "Datagrams forwarded nowhere, by reason and by whose doing it is.",
        |s, out| {
            let mut drops = |reason, fault: Fault, dropped| {
                out.labelled(&[("reason", reason), ("fault", fault.as_str())], dropped);
            };
            for reason in DropReason::all() {
                let dropped = s.cores.iter().map(|core| core.dropped_for(reason)).sum();
                drops(reason.as_str(), reason.fault(), dropped);
            }
            // These were never shown to a shard: they stand outside its identity.
            drops("socket_overflow", Fault::Kernel, s.kernel(|k| &k.rx_kernel_drops));
            drops("truncated", Fault::Kernel, s.kernel(|k| &k.rx_truncated));
            drops("malformed_address", Fault::Kernel, s.kernel(|k| &k.rx_malformed));
        },
    ),
    counter("broadcast_copies_total", "Copies of broadcasts planned.", |s, out| {
        out.value(s.core(|c| c.copies));
    }),
    counter("broadcasts_deferred_total", "Broadcasts that took more than one pass.", |s, out| {
        out.value(s.core(|c| c.deferred));
    }),
    counter(
        "broadcasts_cut_total",
        "Broadcasts that waited and went to nobody, for their sender's copies were used up or its lease had ended.",
        |s, out| out.value(s.core(|c| c.broadcasts_cut)),
    ),
    counter(
        "broadcast_copies_torn_total",
        "Copies not made because the member's lease was being changed on every look.",
        |s, out| out.value(s.core(|c| c.copies_torn)),
    ),
    counter(
        "hints_total",
        "Hints planned, and answers to other relays that a member has no lease here.",
        |s, out| out.value(s.core(|c| c.hints)),
    ),
    counter("packets_sent_total", "Datagrams the kernel took from shards.", |s, out| {
        out.value(s.kernel(|k| &k.tx_datagrams));
    }),
    counter("bytes_sent_total", "Payload bytes the kernel took from shards.", |s, out| {
        out.value(s.kernel(|k| &k.tx_bytes));
    }),
    counter(
        "packets_joined_total",
        "Datagrams that arrived by themselves and left in a train with others to their destination.",
        |s, out| out.value(s.kernel(|k| &k.tx_joined)),
    ),
    counter("send_failures_total", "Datagrams the kernel refused, by error.", |s, out| {
        for failure in SendFailure::ALL {
            let failed = s.shards.iter().map(|shard| shard.kernel.tx_failed(failure)).sum();
            out.labelled(&[("error", failure.as_str())], failed);
        }
    }),
    counter("syscalls_total", "System calls of the shards' back end.", |s, out| {
        out.value(s.kernel(|k| &k.syscalls));
    }),
    counter(
        "receive_errors_total",
        "Receives that failed with a socket error; receiving went on.",
        |s, out| out.value(s.kernel(|k| &k.rx_errors)),
    ),
    counter(
        "receive_rearms_total",
        "Receives that the kernel ended and that were armed again, by cause.",
        |s, out| {
            out.labelled(&[("cause", "ended")], s.kernel(|k| &k.rearms));
            out.labelled(&[("cause", "no_buffer")], s.kernel(|k| &k.enobufs));
        },
    ),
    counter("gso_events_total", "Segmentation offload given up, by event.", |s, out| {
        out.labelled(&[("event", "socket_disabled")], s.kernel(|k| &k.gso_disabled_sockets));
        out.labelled(&[("event", "destination_barred")], s.kernel(|k| &k.gso_barred_destinations));
        out.labelled(&[("event", "train_resent")], s.kernel(|k| &k.gso_resent_trains));
    }),
    gauge(
        "accounting_skew",
        "What the counting identities are off by, by who counts: must read 0.",
        |s, out| {
            let shards = s.shards(|shard| shard.skew.load(Ordering::Relaxed));
            let sending = s.shards(|shard| shard.send_skew.load(Ordering::Relaxed));
            out.labelled(&[("part", "shards")], shards);
            out.labelled(&[("part", "sending")], sending);
            out.labelled(&[("part", "binder")], s.binder(|binder| binder.skew));
        },
    ),
    gauge("shards", "Threads that forward data.", |s, out| out.value(s.data_shards() as u64)),
    histogram("batch_arrivals", "Arrivals a turn: datagrams or trains.", |s| Distribution {
        buckets: s.histogram(|k| &k.batch_sizes),
        first: 1.0,
        sum: s.kernel(|k| &k.rx_arrivals) as f64,
    }),
    histogram("train_segments", "Datagrams an arrival: above 1 with receive offload.", |s| {
        Distribution {
            buckets: s.histogram(|k| &k.train_lengths),
            first: 1.0,
            sum: s.kernel(|k| &k.rx_segments) as f64,
        }
    }),
    histogram(
        "queue_age_seconds",
        "How long the first arrival of a turn from a socket had waited in it; of one turn in 64.",
        |s| s.latencies(|k| &k.queue_age),
    ),
    histogram(
        "forward_latency_seconds",
        "From when a shard saw what a turn brought to when all of it was sent; of the same turns.",
        |s| s.latencies(|k| &k.forward_latency),
    ),
    gauge("receive_buffers", "Receive buffers that shards have now.", |s, out| {
        out.value(s.kernel(|k| &k.pool_buffers));
    }),
    counter(
        "receive_buffers_grown_total",
        "Times a shard doubled its receive buffers, for a turn had found too few.",
        |s, out| out.value(s.kernel(|k| &k.pool_grown)),
    ),
    counter(
        "queues_shortened_total",
        "Times a socket's receive buffer was shortened, for it overflowed and its queue was older than 5 ms for 100 ms.",
        |s, out| out.value(s.kernel(|k| &k.queues_shortened)),
    ),
];
