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

    /// Whether control stands behind the certificate: it is the map's own, or signed, in time and
    /// of a relay that the map lists, with the listed key or one that control signed later. All
    /// certificates live equally long, so what was signed later ends later.
    pub(crate) fn vouch_for(&self, certificate: &RelayCertificate, now: Instant) -> bool {
        let Some(entry) = self.relay_map.relay(certificate.relay) else { return false };
        let listed = &entry.certificate;
        certificate == listed
            || (certificate.key == listed.key || certificate.not_after > listed.not_after)
                && certificate.pool == self.relay_map.pool
                && certificate.verify(&self.relay_map, self.unix_time(now)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ed25519_dalek::SigningKey;
    use lanrage_proto::map::{RelayEntry, SigningKeyEntry};
    use lanrage_proto::{DeviceKey, KeyId, PoolId, RelayId, Signature, TunnelKey};

    use super::*;

    const UNIX_TIME: u64 = 1_000;

    fn certificate(relay: u16, key: u8, not_after: u64, signer: &SigningKey) -> RelayCertificate {
        RelayCertificate {
            key_id: KeyId(1),
            pool: PoolId(1),
            relay: RelayId(relay),
            ipv4: Some("198.51.100.1:51820".parse().unwrap()),
            ipv6: None,
            key: TunnelKey([key; 32]),
            not_after,
            signature: Signature([0; 64]),
        }
        .sign(signer)
    }

    /// The certificate of a relay that the operator has removed was taken until it ended, up to
    /// 30 days later; so was that of a key which the relay has replaced.
    #[test]
    fn regression_a_removed_relay_is_not_vouched_for() {
        let (signer, start) = (SigningKey::from_bytes(&[7; 32]), Instant::now());
        let certificate = |relay, key, not_after| certificate(relay, key, not_after, &signer);
        let map = RelayMap {
            serial: 1,
            issued: UNIX_TIME,
            pool: PoolId(1),
            signing_keys: vec![SigningKeyEntry {
                id: KeyId(1),
                key: DeviceKey(signer.verifying_key().to_bytes()),
            }],
            relays: vec![RelayEntry {
                name: "r".into(),
                certificate: certificate(2, 2, 3_000),
                tls: None,
            }],
        };
        let private = StaticSecret::from([1; 32]);
        let credentials = Credentials::new(private, None, [0; 16], map, (UNIX_TIME, start), 0);
        let vouches = |certificate, after_s| {
            credentials.vouch_for(&certificate, start + Duration::from_secs(after_s))
        };
        assert!(vouches(certificate(2, 2, 3_000), 9_000), "the map's own holds without control");
        assert!(vouches(certificate(2, 2, 2_500), 0), "not yet renewed");
        assert!(!vouches(certificate(2, 2, 2_500), 2_000), "too late");
        assert!(vouches(certificate(2, 3, 3_001), 0), "a new key, after the map");
        assert!(!vouches(certificate(2, 3, 2_999), 0), "a replaced key");
        for removed in [1, 3] {
            assert!(!vouches(certificate(removed, 4, 2_999), 0));
            assert!(!vouches(certificate(removed, 4, 9_999), 0));
        }
        let mut forged = certificate(2, 3, 3_001);
        forged.not_after += 1;
        assert!(!vouches(forged, 0));
    }
}
