//! What a completion is about.

use super::pools::PoolId;
use crate::sockets::SocketId;

/// The `user_data` of a submission, given back with its completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserData {
    /// The multishot receive of a socket into a pool of buffers.
    Receive(SocketId, PoolId),
    /// A send: the queue's index of its message.
    Send(u32),
    /// The poll of the waker.
    Wake,
}

const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const WAKE: u64 = 3;

impl UserData {
    /// The kind in the upper half, the index in the lower.
    pub(super) fn pack(self) -> u64 {
        let (kind, index) = match self {
            Self::Receive(socket, PoolId(pool)) => {
                (RECEIVE, u32::from(pool) << 8 | u32::from(socket.0))
            }
            Self::Send(index) => (SEND, index),
            Self::Wake => (WAKE, 0),
        };
        kind << 32 | u64::from(index)
    }

    /// `None` if [`pack`](Self::pack) never made this value.
    pub(super) fn unpack(packed: u64) -> Option<Self> {
        let index = packed as u32;
        match packed >> 32 {
            RECEIVE => {
                let pool = PoolId(u16::try_from(index >> 8).ok()?);
                Some(Self::Receive(SocketId(index as u8), pool))
            }
            SEND => Some(Self::Send(index)),
            WAKE if index == 0 => Some(Self::Wake),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for data in [
            UserData::Receive(SocketId(0), PoolId(0)),
            UserData::Receive(SocketId(255), PoolId(3)),
            UserData::Receive(SocketId(7), PoolId(u16::MAX)),
            UserData::Send(0),
            UserData::Send(u32::MAX),
            UserData::Wake,
        ] {
            assert_eq!(UserData::unpack(data.pack()), Some(data));
        }
    }

    #[test]
    fn foreign_values_are_none() {
        for packed in [0, 1, RECEIVE << 32 | 1 << 24, WAKE << 32 | 1, 4 << 32, u64::MAX] {
            assert_eq!(UserData::unpack(packed), None, "{packed:#x}");
        }
    }
}
