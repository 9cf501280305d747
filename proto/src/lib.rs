//! What goes over the wire between LANrage's programs, and nothing else: frames, tickets, invites,
//! the signed relay map, what members say inside their tunnels, and the control API's types.
//!
//! No clock, no socket, no randomness of its own: times and random bytes are arguments. Every
//! decoder takes a slice, allocates nothing from a length it was told, and never panics.
//! `docs/src/protocol.md` describes the same formats in prose; `§` in a comment refers to it.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

/// Newtypes for every number and address that could be swapped for another.
pub mod ids;
pub use ids::{
    Destination, Epoch, Generation, Handle, KeyId, Member, PoolId, RateClass, RelayId, SessionId,
    Tag,
};

/// Fixed-size opaque byte strings: keys, signatures, hashes.
pub mod bytes;
pub use bytes::{
    Commitment, DeviceKey, InviteHash, Mac, PartySecret, RootHash, Signature, TunnelKey,
};

/// A bounded cursor over received bytes and its counterpart for sending.
pub mod wire;
pub use wire::Malformed;

/// Keyed BLAKE2s in the two sizes the protocol uses.
pub mod mac;

/// Tells what a datagram is by its first byte (§2).
pub mod datagram;

/// The frames of the relay protocol, one module each (§3, §4, §5).
pub mod frame;

/// STUN Binding, as far as a relay answers it (§2.1).
pub mod stun;

/// The Noise handshake that makes a lease (§4.4).
pub mod handshake;

/// Signed capabilities: ticket, relay certificate, kick record (§6).
pub mod signed;

/// What only members know: secrets, epochs, the directory, invites (§7).
pub mod party;

/// The signed list of relays and signing keys (§8).
pub mod map;

/// What members say to each other inside their tunnels (§9).
pub mod inner;

/// The control service's API: paths, bodies, stream messages (§10).
pub mod api;

/// Datagrams over TLS, for members whose network blocks UDP (§11).
pub mod stream;
