use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use lanrage_proto::frame::mesh::{MeshEpoch, MeshSecret, Moment};
use lanrage_proto::{PoolId, RelayId, TunnelKey};
use lanrage_relay_table::Endpoint;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::{Peer, Peers, Windows};

/// Another relay, as the relay map has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its number.
    pub relay: RelayId,
    /// Its static key.
    pub key: TunnelKey,
    /// Where it receives, and which of this relay's addresses to send from.
    pub to: Endpoint,
}

/// What a relay has agreed on with the others. It is the slow side's: public-key work is done here,
/// once for each key.
pub struct Roster {
    relay: RelayId,
    pool: PoolId,
    private: StaticSecret,
    others: BTreeMap<RelayId, Known>,
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster").field("relay", &self.relay).finish_non_exhaustive()
    }
}

struct Known {
    other: Other,
    secret: MeshSecret,
    /// `None` until the first [`Roster::peers`].
    windows: Option<Arc<Windows>>,
}

impl Roster {
    /// A relay that knows no others. `private` is its static key.
    pub fn new(relay: RelayId, pool: PoolId, private: &Zeroizing<[u8; 32]>) -> Self {
        Self { relay, pool, private: StaticSecret::from(**private), others: BTreeMap::new() }
    }

    /// Follows the relay map. What was seen of a relay that stays, with its key, is remembered;
    /// itself and who has an unusable key are left out.
    pub fn set_others(&mut self, others: impl IntoIterator<Item = Other>) {
        let mut before = std::mem::take(&mut self.others);
        for other in others.into_iter().filter(|other| other.relay != self.relay) {
            let stays = before.remove(&other.relay).filter(|known| known.other.key == other.key);
            let known = stays.map(|known| Known { other, ..known }).or_else(|| {
                let secret = MeshSecret::agree(&self.private, &other.key, self.pool)?;
                Some(Known { other, secret, windows: None })
            });
            if let Some(known) = known {
                self.others.insert(other.relay, known);
            }
        }
    }

    /// What shards need at this moment; due anew whenever the others or the epoch change.
    pub fn peers(&mut self, moment: Moment) -> Peers {
        let epochs = [-1, 0, 1].map(|ahead| MeshEpoch(moment.epoch.0.saturating_add_signed(ahead)));
        let us = self.relay;
        let peer = |(relay, known): (&RelayId, &mut Known)| Peer {
            relay: *relay,
            to: known.other.to,
            outbound: known.secret.key(us, *relay, moment.epoch),
            inbound: epochs.map(|epoch| known.secret.key(*relay, us, epoch)),
            windows: match &known.windows {
                Some(windows) if windows.covers(epochs[0]) => windows.clone(),
                _ => known.windows.insert(Arc::new(Windows::new(epochs[0]))).clone(),
            },
        };
        Peers::new(moment, self.others.iter_mut().map(peer).collect())
    }
}
