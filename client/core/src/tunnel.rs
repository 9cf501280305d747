//! The seam to WireGuard, whose implementation reads the clock itself and so stands outside.

use std::time::Duration;

use lanrage_proto::{Member, TunnelKey};
use x25519_dalek::StaticSecret;

/// What WireGuard adds to a packet: type, receiver index, counter, tag.
pub const OVERHEAD: usize = 32;
/// Bytes of a handshake initiation: the shortest `out` that every method must be given.
pub const INITIATION_LEN: usize = 148;

/// One end of a WireGuard tunnel with one pre-shared key for its whole life.
///
/// It keeps no packets: while there is no session, [`Tunnel::encapsulate`] says so and the caller
/// queues. It initiates handshakes only when told to, or in [`Tunnel::tick`]. A limiter of
/// handshakes must let through 20 a second: four initiations and their answers, both ways, and a
/// rekeying.
pub trait Tunnel: Send {
    /// Encrypts an IP packet into `out`, at least [`OVERHEAD`] bytes longer than the packet.
    ///
    /// # Errors
    /// [`Refused::NoSession`]; the caller drives a handshake.
    fn encapsulate(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, Refused>;

    /// Reads a datagram of WireGuard types 1 to 4; `out` is at least as long as the datagram and
    /// [`INITIATION_LEN`].
    ///
    /// # Errors
    /// The datagram has no effect; see [`Refused`].
    fn decapsulate(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Received, Refused>;

    /// Writes a fresh handshake initiation, also while another is under way or a session lives.
    ///
    /// # Errors
    /// The implementation cannot, for now.
    fn initiate(&mut self, out: &mut [u8]) -> Result<usize, Refused>;

    /// Runs the tunnel's own timers (rekeying, passive keepalives), called about once a second;
    /// gives the length of a datagram in `out` when one is due.
    fn tick(&mut self, out: &mut [u8]) -> Option<usize>;

    /// Since the handshake that made the session which [`Tunnel::encapsulate`] uses; `None` when
    /// there is no such session.
    fn time_since_handshake(&self) -> Option<Duration>;
}

/// What a datagram was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// `out[..length]` is the peer's IP packet, cut to the length in its header.
    Packet(usize),
    /// `out[..length]` answers the peer: a handshake response, the keepalive that ends a handshake,
    /// a cookie.
    Reply(usize),
    /// Authentic and complete: a keepalive or a cookie reply.
    Nothing,
}

/// Why a tunnel did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No handshake is complete, or the session is too old.
    NoSession,
    /// A data packet's counter was seen before or is too old: usually a copy by another path.
    Duplicate,
    /// An initiation's timestamp is not newer than the last one's: the peer's clock went back, or it
    /// is replayed. Copies of one message by several paths never reach the tunnel.
    Stale,
    /// Everything else: not by the peer, not with this pre-shared key, malformed.
    NotAuthentic,
}

/// What makes a [`Tunnel`].
#[derive(Clone, Copy)]
pub struct TunnelParameters<'a> {
    /// The other end's number; implementations derive a limiter's synthetic address from it.
    pub member: Member,
    /// Our key.
    pub private: &'a StaticSecret,
    /// The other end's key.
    pub peer: &'a TunnelKey,
    /// For the epoch the tunnel belongs to.
    pub pre_shared_key: &'a [u8; 32],
    /// The tunnel's receiver indices are `index << 8 | n`; below 2^24.
    pub index: u32,
}

impl std::fmt::Debug for TunnelParameters<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelParameters")
            .field("member", &self.member)
            .field("peer", &self.peer)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// Makes tunnels: a new one for each member and epoch.
pub trait TunnelFactory: Send {
    /// A tunnel without a session.
    fn make(&mut self, parameters: TunnelParameters<'_>) -> Box<dyn Tunnel>;
}

/// What a datagram in WireGuard's format is, as far as one can tell without keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Type 1: names no receiver and proves no pre-shared key.
    Initiation,
    /// Types 2 and 4, for the tunnel with this index: only a holder of the pre-shared key makes one
    /// that is accepted.
    Session(u32),
    /// Type 3, for the tunnel with this index.
    Cookie(u32),
}

/// Sorts a datagram by type and length (WireGuard paper §5.4); `None` for anything else.
pub(crate) fn kind(datagram: &[u8]) -> Option<Kind> {
    let index_at = |at: usize| {
        let bytes = datagram.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes) >> 8)
    };
    match (datagram.first_chunk::<4>()?, datagram.len()) {
        ([1, 0, 0, 0], INITIATION_LEN) => Some(Kind::Initiation),
        ([2, 0, 0, 0], RESPONSE_LEN) => index_at(8).map(Kind::Session),
        ([3, 0, 0, 0], COOKIE_LEN) => index_at(4).map(Kind::Cookie),
        ([4, 0, 0, 0], OVERHEAD..) => index_at(4).map(Kind::Session),
        _ => None,
    }
}

/// The first MAC of an initiation or a response: the same only in a copy of the same message.
pub(crate) fn handshake_mac(datagram: &[u8]) -> Option<[u8; 16]> {
    match (datagram.first()?, datagram.len()) {
        (1, INITIATION_LEN) | (2, RESPONSE_LEN) => {
            datagram.get(datagram.len() - 32..)?.first_chunk()
        }
        _ => None,
    }
    .copied()
}

const RESPONSE_LEN: usize = 92;
const COOKIE_LEN: usize = 64;
