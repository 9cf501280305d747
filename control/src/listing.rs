use std::fmt::{Display, Write as _};

use serde_json::json;

use crate::domain::limits::{NOTE_PERIOD_S, RELAY_SILENT_S};
use crate::store::relays::RelayRow;

/// What is known of a relay, or of the service, that was last seen at `seen`.
fn is_recent(seen: u64, now: u64) -> bool {
    seen.saturating_add(RELAY_SILENT_S + NOTE_PERIOD_S) >= now
}

/// What the database tells of a relay. The service notes there whom it hears, and that it is at work
/// itself: while it is not, nobody knows.
fn state(relay: &RelayRow, alive: u64, now: u64) -> &'static str {
    match (is_recent(relay.seen, now), is_recent(alive, now)) {
        (_, false) => "unknown",
        (true, true) => "connected",
        (false, true) => "silent",
    }
}

/// For people. `alive`: when the service was last at work.
pub(crate) fn table(relays: &[RelayRow], alive: u64, now: u64) -> String {
    let mut text = line(&[&"ID", &"NAME", &"STATE", &"SEEN", &"IPV4", &"IPV6"]);
    for relay in relays {
        let or_none = |address: Option<String>| address.unwrap_or_else(|| "-".to_owned());
        text += &line(&[
            &relay.id,
            &relay.name,
            &state(relay, alive, now),
            &ago(relay.seen, now),
            &or_none(relay.ipv4.map(|address| address.to_string())),
            &or_none(relay.ipv6.map(|address| address.to_string())),
        ]);
    }
    text
}

/// For programs: `seen` in seconds since 1970, addresses or null.
pub(crate) fn as_json(relays: &[RelayRow], alive: u64, now: u64) -> String {
    let relays: Vec<_> = relays
        .iter()
        .map(|relay| {
            json!({
                "id": relay.id,
                "name": relay.name,
                "state": state(relay, alive, now),
                "seen": relay.seen,
                "ipv4": relay.ipv4,
                "ipv6": relay.ipv6,
                "tls_port": relay.tls.map(|tls| tls.port),
            })
        })
        .collect();
    format!("{}\n", json!({ "relays": relays }))
}

fn line([id, name, state, seen, ipv4, ipv6]: &[&dyn Display; 6]) -> String {
    // Padding is for strings; other types may ignore it.
    let [id, name, state, seen, ipv4] = [id, name, state, seen, ipv4].map(ToString::to_string);
    let mut text = String::new();
    writeln!(text, "{id:>5}  {name:<20}  {state:<9}  {seen:>9}  {ipv4:<21}  {ipv6}")
        .expect("a string takes everything");
    text
}

/// A time that has passed, in its largest unit.
fn ago(then: u64, now: u64) -> String {
    match now.saturating_sub(then) {
        s @ ..120 => format!("{s} s ago"),
        s @ ..7_200 => format!("{} min ago", s / 60),
        s @ ..172_800 => format!("{} h ago", s / 3_600),
        s => format!("{} d ago", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use lanrage_proto::{DeviceKey, RelayId, TunnelKey};

    use super::*;

    const NOW: u64 = 1_000_000;

    fn relay(seen: u64) -> RelayRow {
        RelayRow {
            id: RelayId(7),
            name: "fra1".to_owned(),
            identity: DeviceKey([1; 32]),
            key: TunnelKey([2; 32]),
            ipv4: Some("192.0.2.1:51820".parse().unwrap()),
            ipv6: None,
            tls: None,
            certificate: None,
            seen,
        }
    }

    /// Dead relays looked like live ones.
    #[test]
    fn regression_a_dead_relay_is_told_from_a_live_one() {
        let row =
            |seen, alive| table(&[relay(seen)], alive, NOW).lines().nth(1).unwrap().to_owned();
        assert_eq!(
            row(NOW - 9, NOW),
            "    7  fra1                  connected    9 s ago  192.0.2.1:51820        -"
        );
        let silent = row(NOW - 31, NOW);
        assert!(silent.contains("silent") && silent.contains("31 s ago"), "{silent}");
        assert!(row(NOW - 9, NOW - 60).contains("unknown"), "control is down");
        assert!(table(&[], NOW, NOW).starts_with("   ID  NAME "));
        let json: serde_json::Value =
            serde_json::from_str(&as_json(&[relay(NOW - 9)], NOW, NOW)).unwrap();
        assert_eq!(json["relays"][0]["state"], "connected");
        assert_eq!(json["relays"][0]["seen"], NOW - 9);
        assert_eq!(json["relays"][0]["ipv4"], "192.0.2.1:51820");
    }

    #[test]
    fn times_have_one_unit() {
        let told: Vec<_> = [119, 120, 7_200, 172_800].map(|s| ago(NOW - s, NOW)).into();
        assert_eq!(told, ["119 s ago", "2 min ago", "2 h ago", "2 d ago"]);
    }
}
