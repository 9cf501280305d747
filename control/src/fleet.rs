//! Which relays are alive, as their streams tell.

use dashmap::DashMap;
use lanrage_proto::RelayId;
use lanrage_proto::api::Heartbeat;

use crate::domain::limits::{RELAY_GONE_S, RELAY_RETURN_S, RELAY_SILENT_S};
use crate::domain::relays::{Health, RelayStanding};
use crate::random::random_bytes;

/// The enrolled relays' last signs of life.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    relays: DashMap<RelayId, Life>,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    /// When it last said that it serves, in seconds of uptime.
    served: Option<u64>,
    draining: bool,
    load: u64,
    random: u32,
}

impl Life {
    fn health(&self, uptime_s: u64) -> Health {
        match self.served {
            Some(served) if !self.draining && uptime_s < served.saturating_add(RELAY_SILENT_S) => {
                Health::Serving
            }
            Some(served) if uptime_s < served.saturating_add(RELAY_GONE_S) => Health::Silent,
            Some(_) | None => Health::Gone,
        }
    }
}

impl Fleet {
    /// Follows the enrolled relays. One that is first seen at the service's own start is given
    /// time to come back; a new one counts once it has spoken.
    pub(crate) fn enrolled(&self, ids: &[RelayId], at_start: bool) {
        self.relays.retain(|id, _| ids.contains(id));
        for id in ids {
            self.relays.entry(*id).or_insert_with(|| Life {
                served: at_start.then_some(RELAY_RETURN_S),
                draining: false,
                load: 0,
                random: u32::from_be_bytes(random_bytes()),
            });
        }
    }

    /// A relay has proven itself on a stream.
    pub(crate) fn connected(&self, relay: RelayId, uptime_s: u64) {
        if let Some(mut life) = self.relays.get_mut(&relay) {
            life.served = Some(uptime_s);
            life.draining = false;
        }
    }

    /// A relay says how it is.
    pub(crate) fn heartbeat(&self, relay: RelayId, heartbeat: &Heartbeat, uptime_s: u64) {
        if let Some(mut life) = self.relays.get_mut(&relay) {
            life.draining = heartbeat.draining;
            life.load = heartbeat.leases;
            if !heartbeat.draining {
                life.served = Some(uptime_s);
            }
        }
    }

    /// All relays as party lists see them, by id.
    pub(crate) fn standings(&self, uptime_s: u64) -> Vec<RelayStanding> {
        let standing =
            |entry: dashmap::mapref::multiple::RefMulti<'_, RelayId, Life>| RelayStanding {
                relay: *entry.key(),
                health: entry.health(uptime_s),
                load: entry.load,
                random: entry.random,
            };
        let mut standings: Vec<_> = self.relays.iter().map(standing).collect();
        standings.sort_unstable_by_key(|standing| standing.relay);
        standings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: RelayId = RelayId(1);

    fn health(fleet: &Fleet, uptime_s: u64) -> Health {
        fleet.standings(uptime_s)[0].health
    }

    fn heartbeat(draining: bool) -> Heartbeat {
        let version = String::new();
        Heartbeat { leases: 5, sessions: 1, draining, cursor: 0, version, now: 0 }
    }

    #[test]
    fn a_relay_serves_while_its_heart_beats() {
        let fleet = Fleet::default();
        fleet.enrolled(&[RELAY], false);
        assert_eq!(health(&fleet, 0), Health::Gone, "never seen");
        fleet.connected(RELAY, 100);
        assert_eq!(health(&fleet, 114), Health::Serving);
        assert_eq!(health(&fleet, 115), Health::Silent);
        fleet.heartbeat(RELAY, &heartbeat(false), 120);
        assert_eq!(health(&fleet, 120), Health::Serving);
        fleet.heartbeat(RELAY, &heartbeat(true), 125);
        assert_eq!(health(&fleet, 125), Health::Silent, "draining");
        assert_eq!(health(&fleet, 720), Health::Gone, "10 minutes after it last served");
        fleet.enrolled(&[], false);
        assert!(fleet.standings(720).is_empty());
    }

    #[test]
    fn relays_have_time_to_return_after_a_start() {
        let fleet = Fleet::default();
        fleet.enrolled(&[RELAY], true);
        assert_eq!(health(&fleet, RELAY_RETURN_S + RELAY_SILENT_S - 1), Health::Serving);
        assert_eq!(health(&fleet, RELAY_RETURN_S + RELAY_SILENT_S), Health::Silent);
    }
}
