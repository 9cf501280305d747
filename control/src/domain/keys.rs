use ed25519_dalek::SigningKey;
use lanrage_proto::map::SigningKeyEntry;
use lanrage_proto::{DeviceKey, KeyId};

use super::limits::{SIGNING_KEY_KEPT_S, SIGNING_KEY_LEAD_S, SIGNING_KEY_PERIOD_S};

/// A key that signs tickets, certificates and kicks.
#[derive(Clone, Debug)]
pub(crate) struct SigningKeyRow {
    pub(crate) id: KeyId,
    pub(crate) key: SigningKey,
    pub(crate) made: u64,
}

/// The key that signs: the newest that relays have had time to learn, else the eldest.
pub(crate) fn current(keys: &[SigningKeyRow], now: u64) -> Option<&SigningKeyRow> {
    let known = |key: &&SigningKeyRow| key.made.saturating_add(SIGNING_KEY_LEAD_S) <= now;
    keys.iter()
        .filter(known)
        .max_by_key(|key| key.made)
        .or_else(|| keys.iter().min_by_key(|key| key.made))
}

/// The id of the key that is due, if one is.
pub(crate) fn due(keys: &[SigningKeyRow], now: u64) -> Option<KeyId> {
    match keys.iter().max_by_key(|key| key.made) {
        None => Some(KeyId(1)),
        Some(newest) if newest.made.saturating_add(SIGNING_KEY_PERIOD_S) <= now => {
            Some(KeyId(newest.id.0.wrapping_add(1)))
        }
        Some(_) => None,
    }
}

/// Keys made before this sign nothing that still holds.
pub(crate) fn kept_since(now: u64) -> u64 {
    now.saturating_sub(SIGNING_KEY_KEPT_S)
}

/// The keys as the map lists them.
pub(crate) fn listed(keys: &[SigningKeyRow]) -> Vec<SigningKeyEntry> {
    let entry = |row: &SigningKeyRow| SigningKeyEntry {
        id: row.id,
        key: DeviceKey(row.key.verifying_key().to_bytes()),
    };
    keys.iter().map(entry).collect()
}
