use std::sync::Arc;

use lanrage_proto::RelayId;
use lanrage_proto::frame::mesh::{MeshEpoch, MeshKey, Moment};
use lanrage_relay_table::Endpoint;

use super::Windows;

/// The other relays in one epoch. Never changed: another takes its place.
#[derive(Debug)]
pub struct Peers {
    moment: Moment,
    /// By ascending id.
    list: Box<[Peer]>,
}

/// Another relay in one epoch.
#[derive(Debug)]
pub struct Peer {
    pub(super) relay: RelayId,
    pub(super) to: Endpoint,
    pub(super) outbound: MeshKey,
    /// Of the epoch before, this one and the next.
    pub(super) inbound: [MeshKey; 3],
    pub(super) windows: Arc<Windows>,
}

impl Peers {
    /// `list` is sorted here.
    pub(super) fn new(moment: Moment, mut list: Vec<Peer>) -> Self {
        list.sort_by_key(|peer| peer.relay);
        Self { moment, list: list.into() }
    }

    /// No other relay.
    pub(crate) fn none() -> Self {
        Self::new(Moment::new(0), Vec::new())
    }

    pub(crate) const fn moment(&self) -> Moment {
        self.moment
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Peer> {
        self.list.iter()
    }

    /// The place of a relay in the list.
    #[inline]
    pub(crate) fn find(&self, relay: RelayId) -> Option<usize> {
        self.list.binary_search_by_key(&relay, |peer| peer.relay).ok()
    }

    /// The relay at a place that [`Peers::find`] gave.
    #[inline]
    pub(crate) fn at(&self, place: usize) -> &Peer {
        &self.list[place]
    }
}

impl Peer {
    /// Its number.
    pub const fn relay(&self) -> RelayId {
        self.relay
    }

    /// Where it receives, and which of this relay's addresses to send from.
    pub(crate) const fn to(&self) -> Endpoint {
        self.to
    }

    pub(crate) const fn outbound(&self) -> &MeshKey {
        &self.outbound
    }

    /// The key of what it sends in an epoch next to `now`.
    pub(crate) fn inbound(&self, now: MeshEpoch, epoch: MeshEpoch) -> Option<&MeshKey> {
        self.inbound.get((epoch.0 + 1).checked_sub(now.0)? as usize)
    }

    pub(crate) fn windows(&self) -> &Windows {
        &self.windows
    }
}
