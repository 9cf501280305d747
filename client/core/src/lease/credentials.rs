use std::time::Instant;

use lanrage_proto::map::RelayMap;
use lanrage_proto::signed::{RelayCertificate, Ticket};
use x25519_dalek::StaticSecret;

/// What all leases of a client are made with.
pub(crate) struct Credentials {
    pub(crate) private: StaticSecret,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) instance: [u8; 16],
    pub(crate) relay_map: RelayMap,
    clock: (u64, Instant),
    stamp: u64,
}

impl Credentials {
    pub(crate) const fn new(
        private: StaticSecret,
        ticket: Option<Ticket>,
        instance: [u8; 16],
        relay_map: RelayMap,
        clock: (u64, Instant),
        stamp: u64,
    ) -> Self {
        Self { private, ticket, instance, relay_map, clock, stamp }
    }

    /// Above every stamp before it.
    pub(crate) const fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// Raises the stamp above what a relay may have seen, microseconds since 1970 by its clock.
    pub(crate) fn raise_stamp(&mut self, relay_time: u64) {
        self.stamp = self.stamp.max(relay_time.saturating_add(1).saturating_mul(1_000_000));
    }

    pub(crate) const fn set_clock(&mut self, unix_time: u64, now: Instant) {
        self.clock = (unix_time, now);
    }

    /// Seconds since 1970 by control's clock.
    pub(crate) fn unix_time(&self, now: Instant) -> u64 {
        self.clock.0 + now.saturating_duration_since(self.clock.1).as_secs()
    }

    /// Whether control stands behind the certificate: it is the map's own, or signed and in time.
    pub(crate) fn vouch_for(&self, certificate: &RelayCertificate, now: Instant) -> bool {
        let listed = self.relay_map.relay(certificate.relay);
        listed.is_some_and(|entry| entry.certificate == *certificate)
            || certificate.pool == self.relay_map.pool
                && certificate.verify(&self.relay_map, self.unix_time(now)).is_ok()
    }
}
