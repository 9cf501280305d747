//! Receive buffers that grow in number with the load.

use std::io;
use std::rc::Rc;

use super::buffers::BufferRing;
use super::ring::Ring;

/// A pool of buffers, and the buffer group it is to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PoolId(pub(super) u16);

/// The pool that receives are started with, and smaller ones that are still in use.
///
/// A pool is never enlarged. A larger one is registered beside it, and takes its place for each socket
/// whose receive has ended. The smaller one goes when no receive uses it and all its buffers are back.
#[derive(Debug)]
pub(super) struct Pools {
    /// The largest last.
    pools: Vec<(PoolId, Rc<BufferRing>)>,
    limit: u16,
    stride: usize,
    next: u16,
}

impl Pools {
    /// No pool yet; buffers of `stride` bytes, at most `limit`, a power of two, in a pool.
    pub(super) fn new(limit: u16, stride: usize) -> Self {
        let most = limit.ilog2() as usize + 1;
        Self { pools: Vec::with_capacity(most), limit, stride, next: 0 }
    }

    /// Adds a pool of `count` buffers, and receives are started with it from now on.
    ///
    /// # Safety
    ///
    /// The ring is dropped before the pools.
    pub(super) unsafe fn add(&mut self, ring: &mut Ring, count: u16) -> io::Result<()> {
        let buffers = BufferRing::new(count, self.stride)?;
        let id = PoolId(self.next);
        // SAFETY: the caller drops the ring first; `retire` unregisters before it drops a pool.
        unsafe { ring.register_buffers(id.0, buffers.address(), count) }?;
        self.next = self.next.wrapping_add(1);
        self.pools.push((id, buffers));
        Ok(())
    }

    /// Adds a pool twice as large as the largest, up to the limit; whether it did.
    ///
    /// # Safety
    ///
    /// As for [`add`](Self::add).
    pub(super) unsafe fn grow(&mut self, ring: &mut Ring) -> bool {
        let count = self.count();
        // SAFETY: the caller's promise.
        let grown = count < self.limit && unsafe { self.add(ring, count * 2) }.is_ok();
        if !grown {
            // What was refused once is not tried again on every turn.
            self.limit = count;
        }
        grown
    }

    /// Lets go of smaller pools that nothing uses; `is_used`: a receive does.
    pub(super) fn retire(&mut self, ring: &mut Ring, is_used: impl Fn(PoolId) -> bool) {
        let last = self.newest();
        self.pools.retain(|(id, buffers)| {
            let is_free = buffers.free() == usize::from(buffers.count());
            let is_done = *id != last && is_free && !is_used(*id);
            // A pool that the kernel does not let go of is kept.
            !(is_done && ring.unregister_buffers(id.0).is_ok())
        });
    }

    /// There is one pool.
    pub(super) fn is_settled(&self) -> bool {
        self.pools.len() == 1
    }

    /// The pool to start receives with.
    pub(super) fn newest(&self) -> PoolId {
        self.pools.last().map_or(PoolId(0), |(id, _)| *id)
    }

    /// Buffers of the newest pool.
    pub(super) fn count(&self) -> u16 {
        self.pools.last().map_or(0, |(_, buffers)| buffers.count())
    }

    /// Some pool has but a quarter of its buffers left.
    pub(super) fn is_short(&self) -> bool {
        self.pools.iter().any(|(_, buffers)| buffers.free() < usize::from(buffers.count()) / 4)
    }

    /// The newest pool has no buffer left.
    pub(super) fn is_exhausted(&self) -> bool {
        self.pools.last().is_none_or(|(_, buffers)| buffers.free() == 0)
    }

    pub(super) fn pool(&self, id: PoolId) -> Option<&Rc<BufferRing>> {
        // From the end: the newest is the busiest.
        self.pools.iter().rev().find(|(pool, _)| *pool == id).map(|(_, buffers)| buffers)
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> &[(PoolId, Rc<BufferRing>)] {
        &self.pools
    }
}
