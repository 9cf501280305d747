use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use lanrage_proto::frame::DATAGRAM_LEN_MAX;
use lanrage_relay_core::{STREAM_LOCAL, stream_number};
use lanrage_relay_table::Endpoint;
use tokio::sync::Notify;

/// Datagrams on their way to the streams' thread: 3 MiB.
const PARCELS: usize = 2048;

/// A datagram for a stream.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) stream: u64,
    len: u16,
    bytes: [u8; DATAGRAM_LEN_MAX],
}

impl Parcel {
    pub(super) fn datagram(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[derive(Debug)]
struct Shared {
    parcels: ArrayQueue<Parcel>,
    arrived: Notify,
    called: Notify,
}

/// The way of other threads to streams: bounded, allocated at start, never waited on. Each thread
/// has its own and wakes the streams' thread once a batch.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    /// `None` where no streams are served; leases at streams of the process before may be left.
    shared: Option<Arc<Shared>>,
    is_due: bool,
}

impl Outlet {
    pub(crate) fn new() -> Self {
        let shared = Shared {
            parcels: ArrayQueue::new(PARCELS),
            arrived: Notify::new(),
            called: Notify::new(),
        };
        Self { shared: Some(Arc::new(shared)), is_due: false }
    }

    pub(crate) const fn closed() -> Self {
        Self { shared: None, is_due: false }
    }

    /// Whether there was room.
    pub(crate) fn push(&mut self, to: Endpoint, datagram: &[u8]) -> bool {
        let (Some(shared), Some(stream)) = (&self.shared, stream_number(&to)) else {
            return false;
        };
        let mut bytes = [0; DATAGRAM_LEN_MAX];
        let Some(room) = bytes.get_mut(..datagram.len()) else { return false };
        room.copy_from_slice(datagram);
        let parcel = Parcel { stream, len: datagram.len() as u16, bytes };
        let has_room = shared.parcels.push(parcel).is_ok();
        self.is_due |= has_room;
        has_room
    }

    /// [`Outlet::push`] for an address as the binder knows it.
    pub(crate) fn push_to(&mut self, to: SocketAddr, datagram: &[u8]) -> bool {
        self.push(Endpoint::new(to, STREAM_LOCAL), datagram)
    }

    /// The end of a batch.
    pub(crate) fn flush(&mut self) {
        if std::mem::take(&mut self.is_due) {
            self.wake();
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(shared) = &self.shared {
            shared.arrived.notify_one();
        }
    }

    /// Has the streams' thread look at its gate.
    pub(crate) fn call(&self) {
        if let Some(shared) = &self.shared {
            shared.called.notify_one();
        }
    }

    /// Waits for [`Outlet::call`].
    pub(super) async fn called(&self) {
        match &self.shared {
            Some(shared) => shared.called.notified().await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn pop(&self) -> Option<Parcel> {
        self.shared.as_ref()?.parcels.pop()
    }

    /// Waits for a wake-up since the last call.
    pub(super) async fn arrived(&self) {
        match &self.shared {
            Some(shared) => shared.arrived.notified().await,
            None => std::future::pending().await,
        }
    }
}
