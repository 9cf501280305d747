use std::sync::atomic::Ordering;

use super::page::{Metric, counter, gauge};
use crate::streams::{Closed, Dropped, Refused};

/// What the streams' thread counts beside its shard's decisions.
pub(super) const METRICS: &[Metric] = &[
    gauge("streams", "Streams now, those in their handshake included.", |s, out| {
        out.value(s.streams.open);
    }),
    counter("streams_accepted_total", "TCP connections for streams that got a place.", |s, out| {
        out.value(s.streams.accepted)
    }),
    counter(
        "streams_refused_total",
        "TCP connections for streams that were closed at once, by reason.",
        |s, out| {
            for reason in Refused::ALL {
                out.labelled(&[("reason", reason.as_str())], s.streams.refused(reason));
            }
        },
    ),
    counter("streams_established_total", "Streams whose TLS handshake was done.", |s, out| {
        out.value(s.streams.established);
    }),
    counter("streams_closed_total", "Streams that ended, by cause.", |s, out| {
        for cause in Closed::ALL {
            out.labelled(&[("cause", cause.as_str())], s.streams.closed(cause));
        }
    }),
    counter(
        "stream_packets_total",
        "Datagrams for streams, and those of them that TLS took.",
        |s, out| {
            out.labelled(&[("event", "planned")], s.streams.to_streams);
            out.labelled(&[("event", "sent")], s.streams.sent);
        },
    ),
    counter(
        "stream_packets_dropped_total",
        "Datagrams for streams that went nowhere, by reason.",
        |s, out| {
            for reason in Dropped::ALL {
                out.labelled(&[("reason", reason.as_str())], s.streams.dropped(reason));
            }
            // These never came to the streams' thread.
            let refused = s.shards(|shard| shard.streams_refused.load(Ordering::Relaxed));
            out.labelled(&[("reason", "hand_over")], refused);
        },
    ),
];
