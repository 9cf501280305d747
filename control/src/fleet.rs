//! Which relays are alive, as their streams tell.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use lanrage_proto::RelayId;
use lanrage_proto::api::Heartbeat;

use crate::domain::limits::{RELAY_GONE_S, RELAY_RETURN_S, RELAY_SILENT_S};
use crate::domain::relays::{Addresses, Health, RelayStanding};
use crate::random::random_bytes;

/// A stream whose relay has closed it can go on to deliver what was under way, when packets were lost;
/// one that still speaks this long after a newer one began has a living process at its end.
const DOUBLED_AFTER_S: u64 = 30;

/// The enrolled relays' streams and last signs of life.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    relays: DashMap<RelayId, Life>,
    next_stream: AtomicU64,
}

/// Names one stream of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamId(u64);

/// What a heartbeat means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The relay is as it says.
    Counted,
    /// The relay is as it says, and its certificate has the addresses of a stream that has ended:
    /// these are to be taken again.
    Returned(Addresses),
    /// The relay has a newer stream and still speaks on this one: two processes have its identity.
    /// Said once a stream.
    Doubled { here: Addresses, newer: Addresses },
    /// The relay has a newer stream: nothing new.
    Ignored,
}

#[derive(Debug)]
struct Life {
    /// The newest is last, and the only one that counts.
    streams: Vec<Line>,
    /// What the certificate says.
    addresses: Addresses,
    /// Uptimes in seconds: takes new parties before the first, keeps its parties before the second.
    serving_until: u64,
    kept_until: u64,
    /// When it last said anything.
    heard: Option<u64>,
    draining: bool,
    load: u64,
    random: u32,
}

#[derive(Debug)]
struct Line {
    id: StreamId,
    addresses: Addresses,
    /// When it began, in seconds of uptime.
    since: u64,
    is_reported: bool,
}

impl Life {
    fn new(serving_until: u64, kept_until: u64) -> Self {
        Self {
            streams: Vec::new(),
            addresses: Addresses::default(),
            serving_until,
            kept_until,
            heard: None,
            draining: false,
            load: 0,
            random: u32::from_be_bytes(random_bytes()),
        }
    }

    fn serves(&mut self, uptime_s: u64) {
        self.serving_until = uptime_s + RELAY_SILENT_S;
        self.kept_until = uptime_s + RELAY_GONE_S;
    }

    const fn health(&self, uptime_s: u64) -> Health {
        if !self.draining && uptime_s < self.serving_until {
            Health::Serving
        } else if uptime_s < self.kept_until {
            Health::Silent
        } else {
            Health::Gone
        }
    }
}

impl Fleet {
    /// The relays at the service's start, each with whether it was there when the service was last
    /// at work. Those have time to come back; the others keep their parties and get no new ones.
    pub(crate) fn at_start(
        relays: impl IntoIterator<Item = (RelayId, bool)>,
        uptime_s: u64,
    ) -> Self {
        let returned_by = uptime_s + RELAY_RETURN_S;
        let life = |was_there| {
            let serving_until = if was_there { returned_by + RELAY_SILENT_S } else { 0 };
            Life::new(serving_until, returned_by + RELAY_GONE_S)
        };
        let relays = relays.into_iter().map(|(relay, was_there)| (relay, life(was_there)));
        Self { relays: relays.collect(), next_stream: AtomicU64::new(0) }
    }

    /// Follows the enrolled relays; a new one counts once it has spoken.
    pub(crate) fn enrolled(&self, ids: &[RelayId]) {
        self.relays.retain(|id, _| ids.contains(id));
        for id in ids {
            self.relays.entry(*id).or_insert_with(|| Life::new(0, 0));
        }
    }

    /// A relay has proven itself on a stream, and its certificate has the addresses it named there.
    /// Must be called while writers are held off.
    pub(crate) fn attach(&self, relay: RelayId, addresses: Addresses, uptime_s: u64) -> StreamId {
        let id = StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed));
        if let Some(mut life) = self.relays.get_mut(&relay) {
            life.streams.push(Line { id, addresses, since: uptime_s, is_reported: false });
            life.addresses = addresses;
            life.heard = Some(uptime_s);
            life.draining = false;
            life.serves(uptime_s);
        }
        id
    }

    /// A stream has ended.
    pub(crate) fn detach(&self, relay: RelayId, stream: StreamId) {
        if let Some(mut life) = self.relays.get_mut(&relay) {
            life.streams.retain(|line| line.id != stream);
        }
    }

    /// A relay says how it is. What it says counts on its newest stream alone.
    pub(crate) fn heartbeat(
        &self,
        relay: RelayId,
        stream: StreamId,
        heartbeat: &Heartbeat,
        uptime_s: u64,
    ) -> Heard {
        let Some(mut life) = self.relays.get_mut(&relay) else { return Heard::Ignored };
        let life = &mut *life;
        let Some((newest, older)) = life.streams.split_last_mut() else { return Heard::Ignored };
        if newest.id != stream {
            let line = older.iter_mut().find(|line| line.id == stream && !line.is_reported);
            return match line {
                Some(line) if uptime_s >= newest.since + DOUBLED_AFTER_S => {
                    line.is_reported = true;
                    Heard::Doubled { here: line.addresses, newer: newest.addresses }
                }
                Some(_) | None => Heard::Ignored,
            };
        }
        let addresses = newest.addresses;
        life.heard = Some(uptime_s);
        life.draining = heartbeat.draining;
        life.load = heartbeat.leases;
        if !heartbeat.draining {
            life.serves(uptime_s);
        }
        if life.addresses == addresses { Heard::Counted } else { Heard::Returned(addresses) }
    }

    /// Whether a stream is its relay's newest.
    pub(crate) fn is_newest(&self, relay: RelayId, stream: StreamId) -> bool {
        let life = self.relays.get(&relay);
        life.is_some_and(|life| life.streams.last().is_some_and(|line| line.id == stream))
    }

    /// The certificate has other addresses. Must be called while writers are held off.
    pub(crate) fn readdress(&self, relay: RelayId, addresses: Addresses) {
        if let Some(mut life) = self.relays.get_mut(&relay) {
            life.addresses = addresses;
        }
    }

    /// The relays that are not silent, each with how many seconds ago it was heard.
    pub(crate) fn heard(&self, uptime_s: u64) -> Vec<(RelayId, u64)> {
        let ago = |life: &Life| Some(uptime_s.saturating_sub(life.heard?));
        let all = self.relays.iter().filter_map(|entry| Some((*entry.key(), ago(&entry)?)));
        all.filter(|(_, ago_s)| *ago_s < RELAY_SILENT_S).collect()
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

    fn at(last: u8) -> Addresses {
        let ipv4 = std::net::SocketAddrV4::new([192, 0, 2, last].into(), 51820);
        Addresses { ipv4: Some(ipv4), ..Addresses::default() }
    }

    #[test]
    fn a_relay_serves_while_its_heart_beats() {
        let fleet = Fleet::default();
        fleet.enrolled(&[RELAY]);
        assert_eq!(health(&fleet, 0), Health::Gone, "never seen");
        let stream = fleet.attach(RELAY, at(1), 100);
        assert_eq!(health(&fleet, 114), Health::Serving);
        assert_eq!(health(&fleet, 115), Health::Silent);
        assert_eq!(fleet.heartbeat(RELAY, stream, &heartbeat(false), 120), Heard::Counted);
        assert_eq!(health(&fleet, 120), Health::Serving);
        fleet.heartbeat(RELAY, stream, &heartbeat(true), 125);
        assert_eq!(health(&fleet, 125), Health::Silent, "draining");
        assert_eq!(fleet.heard(130), [(RELAY, 5)]);
        assert_eq!(fleet.heard(140), []);
        assert_eq!(health(&fleet, 720), Health::Gone, "10 minutes after it last served");
        fleet.enrolled(&[]);
        assert!(fleet.standings(720).is_empty());
    }

    /// A party was made on a relay that had been dead for long before control's restart.
    #[test]
    fn regression_only_relays_that_were_there_have_time_to_return_after_a_start() {
        let fleet = Fleet::at_start([(RELAY, true), (RelayId(2), false)], 0);
        let both = |uptime_s| fleet.standings(uptime_s).into_iter().map(|s| s.health);
        let until = RELAY_RETURN_S + RELAY_SILENT_S;
        assert!(both(0).eq([Health::Serving, Health::Silent]));
        assert!(both(until - 1).eq([Health::Serving, Health::Silent]));
        assert!(both(until).eq([Health::Silent, Health::Silent]));
        assert!(both(RELAY_RETURN_S + RELAY_GONE_S).eq([Health::Gone, Health::Gone]));
    }

    /// The state directory of a relay was copied with its machine: both copies' heartbeats counted,
    /// and when the copy had ended its address stayed.
    #[test]
    fn regression_of_two_streams_of_a_relay_the_newer_counts_until_it_ends() {
        let fleet = Fleet::default();
        fleet.enrolled(&[RELAY]);
        let first = fleet.attach(RELAY, at(1), 0);
        let second = fleet.attach(RELAY, at(2), 10);
        let beat = |stream, uptime_s| fleet.heartbeat(RELAY, stream, &heartbeat(false), uptime_s);
        assert_eq!(beat(first, 24), Heard::Ignored);
        assert_eq!(health(&fleet, 25), Health::Silent, "the older keeps nothing alive");
        assert_eq!(beat(second, 26), Heard::Counted);
        assert!(fleet.is_newest(RELAY, second) && !fleet.is_newest(RELAY, first));
        assert_eq!(beat(first, 39), Heard::Ignored, "it may have been closed meanwhile");
        assert_eq!(beat(first, 40), Heard::Doubled { here: at(1), newer: at(2) });
        assert_eq!(beat(first, 45), Heard::Ignored, "said once");

        fleet.detach(RELAY, second);
        assert_eq!(beat(first, 50), Heard::Returned(at(1)));
        assert_eq!(beat(first, 55), Heard::Returned(at(1)), "until it is done");
        fleet.readdress(RELAY, at(1));
        assert_eq!(beat(first, 60), Heard::Counted);
        assert_eq!(health(&fleet, 60), Health::Serving);
    }
}
