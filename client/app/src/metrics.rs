//! What the client exports to Prometheus. No label names a member, a party or an address.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;

use crate::daemon::Active;
use crate::failure::{Failure, FailureKind};

const DROPPED: &str = "lanrage_client_dropped_total";
const DATAGRAMS_RECEIVED: &str = "lanrage_client_datagrams_received_total";
const DATAGRAMS_SENT: &str = "lanrage_client_datagrams_sent_total";
const NIC_PACKETS_RECEIVED: &str = "lanrage_client_nic_packets_received_total";
const NIC_PACKETS_SENT: &str = "lanrage_client_nic_packets_sent_total";
const BINDS: &str = "lanrage_client_binds_total";
const INITIATIONS: &str = "lanrage_client_handshake_initiations_total";
const RELAY_RTT: &str = "lanrage_client_relay_rtt_seconds";
const RELAY_LOSS: &str = "lanrage_client_relay_loss_ratio";
const MEMBERS_ONLINE: &str = "lanrage_client_members_online";
const CONTROL_CONNECTED: &str = "lanrage_client_control_connected";

const COUNTERS: [(&str, &str); 7] = [
    (DROPPED, "Datagrams, packets and frames dropped, by reason."),
    (DATAGRAMS_RECEIVED, "Datagrams from relays."),
    (DATAGRAMS_SENT, "Datagrams to relays."),
    (NIC_PACKETS_RECEIVED, "IP packets taken from the virtual NIC."),
    (NIC_PACKETS_SENT, "IP packets given to the virtual NIC."),
    (BINDS, "Leases given by relays."),
    (INITIATIONS, "WireGuard handshakes begun."),
];
const GAUGES: [(&str, Unit, &str); 4] = [
    (RELAY_RTT, Unit::Seconds, "Median round trip to a relay of the party."),
    (RELAY_LOSS, Unit::Count, "Lost self-addressed frames by relay, 0 to 1."),
    (MEMBERS_ONLINE, Unit::Count, "Other members that are on line."),
    (CONTROL_CONNECTED, Unit::Count, "1 while the stream from control is open."),
];

/// The exporter; there is at most one in a process.
#[derive(Debug, Default)]
pub struct Metrics {
    /// What each counter of the party stood at when last read, by name and reason.
    read: BTreeMap<(&'static str, String), u64>,
    /// The relays that gauges stand for.
    relays: BTreeSet<String>,
    is_ready: Arc<AtomicBool>,
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn readiness(is_ready: &AtomicBool) -> (StatusCode, &'static str) {
    if is_ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no relay of an active party answers\n")
    }
}

impl Metrics {
    /// Serves `/metrics`, `/healthz` and `/readyz` at `address`. Ready is a client that a relay of
    /// the active party answers.
    ///
    /// # Errors
    /// The address cannot be listened at.
    pub fn serve(address: SocketAddr) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            let message = format!("cannot serve metrics at {address}: {error}");
            Failure::new(FailureKind::Other, message)
        };
        let listener = listen(address).map_err(|error| failed(&error))?;
        let recorder = PrometheusBuilder::new().install_recorder();
        let recorder = recorder.map_err(|error| failed(&error))?;
        let this = Self::default();
        let is_ready = Arc::clone(&this.is_ready);
        let routes = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(async move || readiness(&is_ready)))
            .route("/metrics", get(async move || recorder.render()));
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "the metrics listener failed");
            }
        });
        for (name, help) in COUNTERS {
            describe_counter!(name, help);
        }
        for (name, unit, help) in GAUGES {
            describe_gauge!(name, unit, help);
        }
        Ok(this)
    }

    /// Publishes what the active party has counted; `None` while no party is up.
    pub(crate) fn update(&mut self, active: Option<&Active>, now: Instant) {
        let is_ready = active.is_some_and(Active::has_relay);
        self.is_ready.store(is_ready, Ordering::Relaxed);
        let mut gone = std::mem::take(&mut self.relays);
        if let Some(active) = active {
            self.count(active);
            for lease in active.client.leases() {
                let relay = lease.relay.id.to_string();
                gone.remove(&relay);
                let rtt = lease.quality.rtt.map_or(f64::NAN, |rtt| rtt.as_secs_f64());
                gauge!(RELAY_RTT, "relay" => relay.clone()).set(rtt);
                let loss = f64::from(lease.quality.loss_permille) / 1000.0;
                gauge!(RELAY_LOSS, "relay" => relay.clone()).set(loss);
                self.relays.insert(relay);
            }
        }
        for relay in gone {
            gauge!(RELAY_RTT, "relay" => relay.clone()).set(f64::NAN);
            gauge!(RELAY_LOSS, "relay" => relay).set(f64::NAN);
        }
        let members = active.map_or_else(Vec::new, |active| active.client.members(now));
        let online = members.iter().filter(|member| member.online && !member.is_self).count();
        gauge!(MEMBERS_ONLINE).set(online as f64);
        let connected = active.is_some_and(|active| active.control.connected);
        gauge!(CONTROL_CONNECTED).set(f64::from(u8::from(connected)));
    }

    fn count(&mut self, active: &Active) {
        let counters = active.client.counters();
        for (name, value) in [
            (DATAGRAMS_RECEIVED, counters.datagrams_received),
            (DATAGRAMS_SENT, counters.datagrams_sent),
            (NIC_PACKETS_RECEIVED, counters.packets_from_nic),
            (NIC_PACKETS_SENT, counters.packets_to_nic),
            (BINDS, counters.binds),
            (INITIATIONS, counters.initiations),
        ] {
            counter!(name).increment(self.growth(name, String::new(), value));
        }
        for (reason, value) in active.drops() {
            let growth = self.growth(DROPPED, reason.clone(), value);
            counter!(DROPPED, "reason" => reason).increment(growth);
        }
    }

    /// Since the last reading. A party that comes up counts from 0; what is exported never falls.
    fn growth(&mut self, name: &'static str, reason: String, value: u64) -> u64 {
        let before = self.read.insert((name, reason), value).unwrap_or(0);
        value.checked_sub(before).unwrap_or(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exporter keeps the highest value it was given, so that another party's first counts were
    /// lost.
    #[test]
    fn regression_counters_go_on_when_another_party_begins_at_0() {
        let mut metrics = Metrics::default();
        let readings = [0, 7, 7, 100, 0, 3];
        let grown = readings.map(|value| metrics.growth(BINDS, String::new(), value));
        assert_eq!(grown, [0, 7, 0, 93, 0, 3]);
        assert_eq!(metrics.growth(DROPPED, "full".to_owned(), 5), 5);
    }
}
