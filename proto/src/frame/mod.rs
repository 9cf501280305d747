//! One module a frame. Offsets in the docs count from the first byte of the UDP payload.

/// Data as sent and as delivered (§3).
pub mod data;

/// The relay's short answers to data it cannot forward (§3.5).
pub mod hint;

/// The first frame of a client: asks for a cookie (§4.1).
pub mod hello;

/// The relay's answers to HELLO: CHALLENGE and UNSUPPORTED (§4.2, §4.3).
pub mod challenge;

/// BIND and BOUND around the Noise handshake (§4.4, §4.5).
pub mod bind;

/// Data between relays (§3.6).
pub mod mesh;

/// Sealed control messages of a lease: REBIND, RELEASE, MOVING (§5.1).
pub mod control;

/// RESUME and RESUMED: a lease back after a relay's crash (§5.4).
pub mod resume;

/// This protocol's version, in HELLO, CHALLENGE, BIND, BOUND, RESUME and RESUMED.
pub const VERSION: u8 = 1;

/// The longest datagram of the protocol: what fits an IPv4 underlay with an MTU of 1,500 bytes.
pub const DATAGRAM_LEN_MAX: usize = 1500 - 20 - 8;

/// Chosen by the client at random; every answer before a lease exists repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 16]);

/// Proof that its holder receives at an address: made and checked by the relay alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie(pub [u8; Self::LEN]);

impl Cookie {
    /// Epoch u32 and a 16-byte MAC.
    pub const LEN: usize = 20;
}
