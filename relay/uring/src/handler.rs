//! The seam to the shard: what arrives, and what the shard does with it.

use std::net::SocketAddr;

use crate::sockets::SocketId;
use crate::tx::Tx;

/// What the shard does with what arrives.
///
/// **A turn calls [`prefetch`](Self::prefetch) for every arrival of the batch, then
/// [`receive`](Self::receive) for each in the same order, then [`batch_end`](Self::batch_end)
/// once**, also when nothing arrived.
pub trait Handler {
    /// An arrival that [`receive`](Self::receive) will be called with later in this turn: time to
    /// prefetch what it will look up.
    fn prefetch(&mut self, bytes: &[u8]) {
        let _ = bytes;
    }

    /// One datagram, or one train of datagrams from the same source.
    fn receive(&mut self, arrival: Received<'_>, tx: &mut Tx<'_>);

    /// The last arrival of the batch has been handled.
    fn batch_end(&mut self, tx: &mut Tx<'_>);
}

/// A datagram, or a GRO train: datagrams that arrived together from one source at one socket.
#[derive(Debug)]
pub struct Received<'a> {
    /// The local address it came to.
    pub socket: SocketId,
    /// Where it came from.
    pub source: SocketAddr,
    /// The payload, or the payloads of a train one after the other. The handler may rewrite them in
    /// place and forward parts of them with [`Tx::forward`].
    pub bytes: &'a mut [u8],
    /// The length of each datagram but the last, which may be shorter; the length of `bytes` when
    /// it is a single datagram.
    pub segment_size: usize,
}

impl Received<'_> {
    /// Datagrams in it, at least 1.
    pub fn segments(&self) -> usize {
        segments(self.bytes.len(), self.segment_size)
    }
}

/// Datagrams in `len` bytes; an empty datagram is one, too.
pub(crate) fn segments(len: usize, segment_size: usize) -> usize {
    len.div_ceil(segment_size.max(1)).max(1)
}
