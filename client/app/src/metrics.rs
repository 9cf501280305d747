//! What the client exports to Prometheus. No label names a member, a party or an address.

use std::net::SocketAddr;
use std::time::Instant;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

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
#[derive(Debug)]
pub struct Metrics(());

impl Metrics {
    /// Serves `/metrics` at `address`.
    ///
    /// # Errors
    /// The address cannot be listened at.
    pub fn serve(address: SocketAddr) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            let message = format!("cannot serve metrics at {address}: {error}");
            Failure::new(FailureKind::Other, message)
        };
        let builder = PrometheusBuilder::new().with_http_listener(address);
        let (recorder, exporter) = builder.build().map_err(|error| failed(&error))?;
        metrics::set_global_recorder(recorder).map_err(|error| failed(&error))?;
        tokio::spawn(exporter);
        for (name, help) in COUNTERS {
            describe_counter!(name, help);
        }
        for (name, unit, help) in GAUGES {
            describe_gauge!(name, unit, help);
        }
        Ok(Self(()))
    }

    /// Publishes what the active party has counted.
    pub(crate) fn update(&self, active: &Active, now: Instant) {
        let counters = active.client.counters();
        counter!(DATAGRAMS_RECEIVED).absolute(counters.datagrams_received);
        counter!(DATAGRAMS_SENT).absolute(counters.datagrams_sent);
        counter!(NIC_PACKETS_RECEIVED).absolute(counters.packets_from_nic);
        counter!(NIC_PACKETS_SENT).absolute(counters.packets_to_nic);
        counter!(BINDS).absolute(counters.binds);
        counter!(INITIATIONS).absolute(counters.initiations);
        for (reason, count) in active.drops() {
            counter!(DROPPED, "reason" => reason).absolute(count);
        }
        for lease in active.client.leases() {
            let relay = lease.relay.to_string();
            let rtt = lease.quality.rtt.map_or(f64::NAN, |rtt| rtt.as_secs_f64());
            gauge!(RELAY_RTT, "relay" => relay.clone()).set(rtt);
            let loss = f64::from(lease.quality.loss_permille) / 1000.0;
            gauge!(RELAY_LOSS, "relay" => relay).set(loss);
        }
        let members = active.client.members(now);
        let online = members.iter().filter(|member| member.online && !member.is_self).count();
        gauge!(MEMBERS_ONLINE).set(online as f64);
        gauge!(CONTROL_CONNECTED).set(f64::from(u8::from(active.control.connected)));
    }
}
