//! `/metrics`: every series is there from the first scrape, and none names a member, a party or an
//! address.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use lanrage_proto::frame::bind::Refusal;
use lanrage_relay_core::{Counters, DropReason, End, Fault, Outcome};
use lanrage_relay_uring::{Counter, Histogram, SendFailure};
use metrics::{counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::published::{BinderView, Published, ShardView};
use crate::role::Role;

/// The counters: name, help.
const COUNTERS: [(&str, &str); 25] = [
    ("packets_received_total", "Datagrams received; a train counts each of its segments."),
    ("bytes_received_total", "Payload bytes received."),
    (
        "packets_forwarded_total",
        "Datagrams received and sent on, by how many members they were for.",
    ),
    ("packets_answered_total", "STUN requests answered."),
    ("packets_to_control_total", "Datagrams received and handed to the binder."),
    ("packets_dropped_total", "Datagrams forwarded nowhere, by reason and by whose doing it is."),
    ("broadcast_copies_total", "Copies of broadcasts planned."),
    ("broadcasts_deferred_total", "Broadcasts that took more than one pass."),
    (
        "broadcasts_cut_total",
        "Broadcasts that waited and went to nobody, for their sender's copies were used up.",
    ),
    (
        "broadcast_copies_torn_total",
        "Copies not made because the member's lease was being changed on every look.",
    ),
    ("hints_total", "Hints planned."),
    ("packets_sent_total", "Datagrams the kernel took from shards."),
    (
        "packets_joined_total",
        "Datagrams that arrived by themselves and left in a train with others to their destination.",
    ),
    ("bytes_sent_total", "Payload bytes the kernel took from shards."),
    ("send_failures_total", "Datagrams the kernel refused, by error."),
    ("control_outcomes_total", "What became of datagrams handed to the binder."),
    ("binds_refused_total", "Refused BIND and RESUME, by reason."),
    ("leases_begun_total", "Leases that began."),
    ("leases_activated_total", "Leases that a first frame made their member's own."),
    ("leases_ended_total", "Leases that ended, by cause."),
    ("control_packets_sent_total", "Datagrams the binder sent, by result."),
    ("syscalls_total", "System calls of the shards' back end."),
    ("receive_errors_total", "Receives that failed with a socket error; receiving went on."),
    ("receive_rearms_total", "Receives that the kernel ended and that were armed again, by cause."),
    ("gso_events_total", "Segmentation offload given up."),
];

/// The gauges: name, help.
const GAUGES: [(&str, &str); 12] = [
    ("accounting_skew", "What the counting identities are off by: must read 0."),
    ("leases", "Leases now, by state."),
    ("leases_capacity", "Leases there is room for."),
    ("sessions", "Sessions with a lease now."),
    ("io_backend", "1 for the back end in use."),
    ("steering", "1 for how datagrams reach the shards."),
    ("gso_verdict", "1 for what was found of this kernel's segmentation offload at the start."),
    ("ready", "Whether /readyz says yes."),
    ("control_connected", "Whether the stream from control lives."),
    (
        "certificate_not_after_seconds",
        "When the relay's certificate ends, since 1970; 0 without one.",
    ),
    ("shards", "Threads that forward data."),
    ("build_info", "1, with the program's version."),
];

/// What does not change while the relay runs.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) backend: &'static str,
    pub(crate) steering: &'static str,
    pub(crate) gso: &'static str,
    pub(crate) capacity: u32,
    /// By local id.
    pub(crate) listen: Vec<SocketAddr>,
}

/// The page.
pub(crate) fn render(published: &Published, facts: &Facts, is_ready: bool) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shards = published.shards();
    with_local_recorder(&recorder, || {
        for (name, help) in COUNTERS {
            describe_counter!(format!("lanrage_relay_{name}"), help);
        }
        for (name, help) in GAUGES {
            describe_gauge!(format!("lanrage_relay_{name}"), help);
        }
        shard_metrics(&shards);
        binder_metrics(published.binder().as_ref());
        state_metrics(published, facts, is_ready);
        let forward_data = shards.iter().filter(|shard| shard.role != Role::Control);
        gauge!("lanrage_relay_shards").set(forward_data.count() as f64);
    });
    let mut page = recorder.handle().render();
    let total = |of: fn(&ShardView) -> &Counter| shards.iter().map(|s| of(s).get()).sum::<u64>();
    histogram(
        &mut page,
        ("lanrage_relay_batch_arrivals", "Arrivals a batch."),
        shards.iter().map(|shard| &shard.kernel.batch_sizes),
        total(|shard| &shard.kernel.rx_arrivals),
    );
    histogram(
        &mut page,
        ("lanrage_relay_train_segments", "Datagrams an arrival: above 1 with receive offload."),
        shards.iter().map(|shard| &shard.kernel.train_lengths),
        total(|shard| &shard.kernel.rx_segments),
    );
    page
}

fn shard_metrics(shards: &[std::sync::Arc<ShardView>]) {
    let cores: Vec<Counters> = shards.iter().map(|shard| shard.counters()).collect();
    let core = |of: fn(&Counters) -> u64| cores.iter().map(of).sum::<u64>();
    let kernel = |of: fn(&lanrage_relay_uring::Counters) -> u64| {
        shards.iter().map(|shard| of(&shard.kernel)).sum::<u64>()
    };
    counter!("lanrage_relay_packets_received_total").absolute(core(|c| c.received));
    counter!("lanrage_relay_bytes_received_total").absolute(kernel(|k| k.rx_bytes.get()));
    for (to, packets) in [
        ("member", core(|c| c.unicast)),
        ("everyone", core(|c| c.broadcast)),
        ("self", core(|c| c.self_addressed)),
    ] {
        counter!("lanrage_relay_packets_forwarded_total", "to" => to).absolute(packets);
    }
    counter!("lanrage_relay_packets_answered_total").absolute(core(|c| c.answered));
    counter!("lanrage_relay_packets_to_control_total").absolute(core(|c| c.to_control));
    for reason in DropReason::all() {
        let dropped = cores.iter().map(|core| core.dropped_for(reason)).sum();
        drops(reason.as_str(), reason.fault()).absolute(dropped);
    }
    // Those below were never shown to a shard: they stand outside its identity.
    drops("socket_overflow", Fault::Kernel).absolute(kernel(|k| k.rx_kernel_drops.get()));
    drops("truncated", Fault::Kernel).absolute(kernel(|k| k.rx_truncated.get()));
    drops("malformed_address", Fault::Kernel).absolute(kernel(|k| k.rx_malformed.get()));
    counter!("lanrage_relay_broadcast_copies_total").absolute(core(|c| c.copies));
    counter!("lanrage_relay_broadcasts_deferred_total").absolute(core(|c| c.deferred));
    counter!("lanrage_relay_broadcasts_cut_total").absolute(core(|c| c.broadcasts_cut));
    counter!("lanrage_relay_broadcast_copies_torn_total").absolute(core(|c| c.copies_torn));
    counter!("lanrage_relay_hints_total").absolute(core(|c| c.hints));
    counter!("lanrage_relay_packets_sent_total").absolute(kernel(|k| k.tx_datagrams.get()));
    counter!("lanrage_relay_packets_joined_total").absolute(kernel(|k| k.tx_joined.get()));
    counter!("lanrage_relay_bytes_sent_total").absolute(kernel(|k| k.tx_bytes.get()));
    for failure in SendFailure::ALL {
        let failed = shards.iter().map(|shard| shard.kernel.tx_failed(failure)).sum();
        counter!("lanrage_relay_send_failures_total", "error" => failure.as_str()).absolute(failed);
    }
    counter!("lanrage_relay_syscalls_total").absolute(kernel(|k| k.syscalls.get()));
    counter!("lanrage_relay_receive_errors_total").absolute(kernel(|k| k.rx_errors.get()));
    for (cause, rearms) in
        [("ended", kernel(|k| k.rearms.get())), ("no_buffer", kernel(|k| k.enobufs.get()))]
    {
        counter!("lanrage_relay_receive_rearms_total", "cause" => cause).absolute(rearms);
    }
    for (event, count) in [
        ("socket_disabled", kernel(|k| k.gso_disabled_sockets.get())),
        ("destination_barred", kernel(|k| k.gso_barred_destinations.get())),
        ("train_resent", kernel(|k| k.gso_resent_trains.get())),
    ] {
        counter!("lanrage_relay_gso_events_total", "event" => event).absolute(count);
    }
    let skew = |of: fn(&ShardView) -> u64| shards.iter().map(|shard| of(shard)).sum::<u64>() as f64;
    gauge!("lanrage_relay_accounting_skew", "part" => "shards")
        .set(skew(|shard| shard.skew.load(Ordering::Relaxed)));
    gauge!("lanrage_relay_accounting_skew", "part" => "sending")
        .set(skew(|shard| shard.send_skew.load(Ordering::Relaxed)));
}

fn drops(reason: &'static str, fault: Fault) -> metrics::Counter {
    counter!(
        "lanrage_relay_packets_dropped_total", "reason" => reason, "fault" => fault.as_str()
    )
}

fn binder_metrics(binder: Option<&BinderView>) {
    let count = |of: &dyn Fn(&BinderView) -> u64| binder.map_or(0, of);
    for (outcome, label) in Outcome::TABLE {
        counter!("lanrage_relay_control_outcomes_total", "outcome" => label)
            .absolute(count(&|binder| binder.counters.outcome(outcome)));
    }
    for reason in Refusal::ALL {
        counter!("lanrage_relay_binds_refused_total", "reason" => reason.as_str())
            .absolute(count(&|binder| binder.counters.refused(reason)));
    }
    for cause in End::ALL {
        counter!("lanrage_relay_leases_ended_total", "cause" => cause.as_str())
            .absolute(count(&|binder| binder.counters.ended(cause)));
    }
    counter!("lanrage_relay_leases_begun_total").absolute(count(&|b| b.counters.begun));
    counter!("lanrage_relay_leases_activated_total").absolute(count(&|b| b.counters.activated));
    for (result, packets) in [("sent", count(&|b| b.sent)), ("failed", count(&|b| b.send_failed))] {
        counter!("lanrage_relay_control_packets_sent_total", "result" => result).absolute(packets);
    }
    for (state, leases) in [
        ("active", count(&|b| b.counts.active as u64)),
        ("pending", count(&|b| b.counts.pending as u64)),
    ] {
        gauge!("lanrage_relay_leases", "state" => state).set(leases as f64);
    }
    gauge!("lanrage_relay_sessions").set(count(&|b| b.counts.sessions as u64) as f64);
    gauge!("lanrage_relay_accounting_skew", "part" => "binder").set(count(&|b| b.skew) as f64);
}

fn state_metrics(published: &Published, facts: &Facts, is_ready: bool) {
    gauge!("lanrage_relay_leases_capacity").set(f64::from(facts.capacity));
    gauge!("lanrage_relay_io_backend", "backend" => facts.backend).set(1);
    gauge!("lanrage_relay_steering", "by" => facts.steering).set(1);
    gauge!("lanrage_relay_gso_verdict", "verdict" => facts.gso).set(1);
    gauge!("lanrage_relay_ready").set(u32::from(is_ready));
    gauge!("lanrage_relay_control_connected")
        .set(u32::from(published.has_control.load(Ordering::Relaxed)));
    gauge!("lanrage_relay_certificate_not_after_seconds")
        .set(published.certificate_not_after.load(Ordering::Relaxed) as f64);
    gauge!("lanrage_relay_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
}

/// A classic histogram: the recorder only takes single observations, and these come counted.
fn histogram<'a>(
    page: &mut String,
    (name, help): (&str, &str),
    of: impl Iterator<Item = &'a Histogram>,
    sum: u64,
) {
    let mut buckets = [0; Histogram::BUCKETS];
    for histogram in of {
        buckets.iter_mut().zip(histogram.buckets()).for_each(|(sum, more)| *sum += more);
    }
    let mut lines = format!("# HELP {name} {help}\n# TYPE {name} histogram\n");
    let mut cumulative = 0;
    let (last, bounded) = buckets.split_last().expect("a histogram has buckets");
    for (power, count) in bounded.iter().enumerate() {
        cumulative += count;
        let _ = writeln!(lines, "{name}_bucket{{le=\"{}\"}} {cumulative}", 1 << power);
    }
    let count = cumulative + last;
    let _ = writeln!(lines, "{name}_bucket{{le=\"+Inf\"}} {count}");
    let _ = writeln!(lines, "{name}_sum {sum}\n{name}_count {count}\n");
    page.push_str(&lines);
}
