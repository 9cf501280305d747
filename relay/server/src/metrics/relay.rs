use std::sync::atomic::Ordering;

use super::page::{Metric, counter, gauge};
use crate::config::GsoSetting;

/// The relay as a whole.
pub(super) const METRICS: &[Metric] = &[
    gauge("build_info", "1, with the program's version.", |_, out| {
        out.labelled(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    }),
    gauge("start_time_seconds", "When the relay began, since 1970.", |s, out| {
        out.value(s.facts.started_at);
    }),
    counter(
        "upgrades_total",
        "Hand-overs to a new process since the relay began, by what became of them.",
        |s, out| {
            let done = s.published.upgrades.load(Ordering::Relaxed);
            let failed = s.published.upgrades_failed.load(Ordering::Relaxed);
            out.labelled(&[("result", "done")], done);
            out.labelled(&[("result", "failed")], failed);
        },
    ),
    gauge("io_backend", "1 for the back end in use.", |s, out| {
        out.labelled(&[("backend", s.facts.backend)], 1);
    }),
    gauge("steering", "1 for how datagrams reach the shards.", |s, out| {
        out.labelled(&[("by", s.facts.steering)], 1);
    }),
    gauge(
        "gso_verdict",
        "1 for what was found of this kernel's segmentation offload at the start.",
        |s, out| out.labelled(&[("verdict", s.facts.gso)], 1),
    ),
    gauge("gso_mode", "1 for how segmentation offload is switched.", |s, out| {
        let mode = GsoSetting::from(s.facts.gso_switch.mode());
        for setting in [GsoSetting::Auto, GsoSetting::On, GsoSetting::Off] {
            out.labelled(&[("mode", setting.as_str())], (setting == mode).into());
        }
    }),
    gauge("ready", "Whether /readyz says yes.", |s, out| out.value(s.is_ready.into())),
    gauge("control_connected", "Whether the stream from control lives.", |s, out| {
        out.value(s.published.has_control.load(Ordering::Relaxed).into());
    }),
    gauge(
        "control_word_age_seconds",
        "Since control last said anything, revocations included; after a start, since what it said was written.",
        |s, out| {
            let heard_at = s.published.heard_at.load(Ordering::Relaxed);
            out.value(s.unix_s.saturating_sub(heard_at));
        },
    ),
    gauge(
        "control_word_kept",
        "Whether all that control said is on disk, revocations included.",
        |s, out| out.value(s.published.unwritten().is_none().into()),
    ),
    gauge(
        "certificate_not_after_seconds",
        "When the relay's certificate ends, since 1970; 0 without one.",
        |s, out| out.value(s.published.certificate_not_after.load(Ordering::Relaxed)),
    ),
];
