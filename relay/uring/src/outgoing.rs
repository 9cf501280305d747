//! One thing to send: a datagram, a train, or a part of a train.

use std::net::SocketAddr;

use crate::address::RawAddress;
use crate::gso::MAX_SEGMENTS;
use crate::handler::segments;
use crate::sockets::SocketId;

/// 65,535 less the IPv4 and UDP headers; over IPv6 more fits, but never more than one segment.
pub(crate) const MAX_PAYLOAD_V4: usize = 65_535 - 20 - 8;

/// Bytes to send. They must stay readable and unchanged until the kernel has taken them: they lie in
/// a receive buffer that the back end holds, or among the queue's copies.
///
/// Messages of a queue may form a *chain*, one train made of several pieces of memory: its first
/// names the next, and the kernel gets them all with the first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub(crate) to: RawAddress,
    pub(crate) bytes: *const u8,
    pub(crate) len: u32,
    /// The index of the next message of the chain; [`END`](Self::END) if there is none.
    pub(crate) next: u32,
    /// 0: a single datagram. Of the first message of a [`Part::Gathered`] chain: the chain's.
    pub(crate) segment_size: u16,
    /// Datagrams that this message stands for.
    pub(crate) segments: u16,
    pub(crate) socket: SocketId,
    pub(crate) part: Part,
}

/// A message's place in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// It is submitted by itself.
    Alone,
    /// The first of a chain whose messages are whole datagrams or trains.
    Joined,
    /// The first of a chain that is cut into datagrams wherever the segment size says so. It stands
    /// for all of them.
    Gathered,
    /// It goes with the first of its chain.
    Later,
}

impl Message {
    pub(crate) const END: u32 = u32::MAX;

    pub(crate) fn new(
        socket: SocketId,
        to: SocketAddr,
        bytes: *const u8,
        len: usize,
        segment_size: Option<u16>,
    ) -> Self {
        let segment_size = segment_size.filter(|size| usize::from(*size) < len).unwrap_or(0);
        let segments = if segment_size == 0 { 1 } else { segments(len, segment_size.into()) };
        Self {
            to: RawAddress::new(to),
            bytes,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            next: Self::END,
            segment_size,
            segments: u16::try_from(segments).unwrap_or(u16::MAX),
            socket,
            part: Part::Alone,
        }
    }

    /// The length of its datagrams but for the last.
    pub(crate) fn datagram_len(&self) -> u32 {
        if self.segment_size == 0 { self.len } else { self.segment_size.into() }
    }

    /// The message in parts of `step` bytes; whole if `step` is 0.
    pub(crate) fn split(self, step: usize) -> impl Iterator<Item = Self> {
        let len = self.len as usize;
        let step = if step == 0 { len.max(1) } else { step };
        (0..len.max(1)).step_by(step).map(move |start| {
            let part = step.min(len - start.min(len));
            let is_train = part > usize::from(self.segment_size) && self.segment_size != 0;
            let size = usize::from(self.segment_size);
            Self {
                bytes: self.bytes.wrapping_add(start),
                len: part as u32,
                segment_size: if is_train { self.segment_size } else { 0 },
                segments: if is_train { segments(part, size) as u16 } else { 1 },
                ..self
            }
        })
    }
}

/// Bytes of the longest train of such segments that the kernel takes at once.
pub(crate) fn train_len_max(segment_size: usize) -> usize {
    let size = segment_size.max(1);
    (MAX_PAYLOAD_V4 / size).clamp(1, MAX_SEGMENTS) * size
}
