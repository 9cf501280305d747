use lanrage_proto::frame::bind::Refusal;
use lanrage_relay_core::{Class, End, Outcome};

use super::page::{Metric, counter, gauge};

/// What the binder counts.
pub(super) const METRICS: &[Metric] = &[
    counter(
        "control_outcomes_total",
        "What became of datagrams handed to the binder.",
        |s, out| {
            for (outcome, label) in Outcome::TABLE {
                out.labelled(&[("outcome", label)], s.binder(|b| b.counters.outcome(outcome)));
            }
        },
    ),
    counter("binds_refused_total", "Refused BIND and RESUME, by reason.", |s, out| {
        for reason in Refusal::ALL {
            let refused = s.binder(|b| b.counters.refused(reason));
            out.labelled(&[("reason", reason.as_str())], refused);
        }
    }),
    counter("leases_begun_total", "Leases that began.", |s, out| {
        out.value(s.binder(|b| b.counters.begun));
    }),
    counter(
        "leases_activated_total",
        "Leases that a first frame made their member's own.",
        |s, out| out.value(s.binder(|b| b.counters.activated)),
    ),
    counter("leases_ended_total", "Leases that ended, by cause.", |s, out| {
        for cause in End::ALL {
            out.labelled(&[("cause", cause.as_str())], s.binder(|b| b.counters.ended(cause)));
        }
    }),
    counter(
        "moving_total",
        "Leases told to leave by a drain; one that stays is told again.",
        |s, out| out.value(s.binder(|b| b.counters.moving)),
    ),
    counter("control_packets_sent_total", "Datagrams the binder sent, by result.", |s, out| {
        out.labelled(&[("result", "sent")], s.binder(|b| b.sent));
        out.labelled(&[("result", "failed")], s.binder(|b| b.send_failed));
    }),
    gauge("leases", "Leases now, by state.", |s, out| {
        out.labelled(&[("state", "active")], s.binder(|b| b.counts.active as u64));
        out.labelled(&[("state", "pending")], s.binder(|b| b.counts.pending as u64));
    }),
    gauge("leases_capacity", "Leases there is room for.", |s, out| {
        out.value(s.facts.capacity.into());
    }),
    gauge("sessions", "Sessions with a lease now.", |s, out| {
        out.value(s.binder(|b| b.counts.sessions as u64));
    }),
    gauge("binder_queue", "What waits for the binder now, by class.", |s, out| {
        let waiting = |class| s.queues.as_ref().map_or(0, |queues| queues.of(class).len() as u64);
        let activations = s.queues.as_ref().map_or(0, |queues| queues.activations.len() as u64);
        out.labelled(&[("class", "activation")], activations);
        out.labelled(&[("class", "established")], waiting(Class::Established));
        out.labelled(&[("class", "hello")], waiting(Class::Hello));
        out.labelled(&[("class", "bind")], waiting(Class::Bind));
    }),
    gauge("bans", "Keys and sessions that the operator has banned.", |s, out| {
        out.value(s.binder(|b| b.bans as u64));
    }),
    gauge("caps", "Sessions and members that the operator has capped.", |s, out| {
        out.value(s.binder(|b| b.caps as u64));
    }),
    gauge("draining", "1 while no lease is given and clients are told to leave.", |s, out| {
        out.value(s.binder(|b| b.draining.is_some().into()));
    }),
    gauge("revocations", "Revocations that hold.", |s, out| {
        out.value(s.binder(|b| b.revocations as u64));
    }),
];
