use crate::frame::DATAGRAM_LEN_MAX;

mod deframer;
pub use deframer::{BadLength, Deframer};
mod waiting;
pub use waiting::Waiting;

/// What client and relay agree on in the TLS handshake (ALPN, RFC 7301).
pub const ALPN: &[u8] = b"lanrage-relay/1";

/// Bytes before each datagram: its length.
pub const LENGTH_LEN: usize = 2;

/// The most that a datagram takes on a stream.
pub const FRAMED_LEN_MAX: usize = LENGTH_LEN + DATAGRAM_LEN_MAX;

const _: () = assert!(DATAGRAM_LEN_MAX <= u16::MAX as usize);
