use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Cookie, Nonce, VERSION};
use crate::datagram::first_byte;
use crate::handshake;
use crate::ids::{Handle, Tag};
use crate::signed::Ticket;
use crate::wire::{Malformed, Reader, Writer};

/// Binds a proven address to a lease (§4.4).
///
/// ```text
/// | 0xF3 | version u8 | 0 u16 | nonce 16 B | cookie 20 B | Noise IK message 1, 260 B |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The HELLO's.
    pub nonce: Nonce,
    /// The CHALLENGE's.
    pub cookie: Cookie,
    /// Carries [`BindRequest`].
    pub noise: &'a [u8; Bind::NOISE_LEN],
}

impl<'a> Bind<'a> {
    /// Noise IK message 1: e, sealed s, sealed payload.
    pub const NOISE_LEN: usize = 32 + (32 + 16) + BindRequest::LEN + 16;
    /// Bytes of the frame.
    pub const LEN: usize = 4 + 16 + Cookie::LEN + Self::NOISE_LEN;

    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        Writer::with_capacity(Self::LEN)
            .bytes(&[first_byte::BIND, VERSION, 0, 0])
            .bytes(&self.nonce.0)
            .bytes(&self.cookie.0)
            .bytes(self.noise)
            .finish()
    }

    /// # Errors
    /// Another length or version.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram, "bind");
        if reader.array()? != [first_byte::BIND, VERSION, 0, 0] {
            return Err(Malformed("bind version"));
        }
        let nonce = Nonce(reader.array()?);
        let cookie = Cookie(reader.array()?);
        let noise = reader.rest().try_into().map_err(|_| Malformed("bind length"))?;
        Ok(Self { nonce, cookie, noise })
    }

    /// The Noise ephemeral key: the same one again is the same BIND again.
    pub fn ephemeral(&self) -> [u8; 32] {
        *self.noise.first_chunk().expect("the message is longer than a key")
    }
}

/// What a client says under Noise message 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindRequest {
    /// The client's right to bind; its signature is not yet checked.
    pub ticket: Ticket,
    /// Random for each start of the daemon: tells two instances of one device apart.
    pub instance: [u8; 16],
    /// Grows with every BIND of a device: an older one is a replay.
    pub stamp: u64,
}

impl BindRequest {
    /// Bytes of the payload.
    pub const LEN: usize = Ticket::LEN + 16 + 8;

    /// The payload's bytes.
    pub fn encode(&self) -> Vec<u8> {
        Writer::with_capacity(Self::LEN)
            .bytes(&self.ticket.encode())
            .bytes(&self.instance)
            .u64(self.stamp)
            .finish()
    }

    /// # Errors
    /// Another length, a malformed ticket.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload, "bind request");
        let request = Self {
            ticket: Ticket::decode(&reader.array()?)?,
            instance: reader.array()?,
            stamp: reader.u64()?,
        };
        reader.finish()?;
        Ok(request)
    }
}

const _: () = assert!(Bound::LEN_MAX <= Bind::LEN, "no answer is longer than its question");

/// The relay's answer to BIND (§4.5).
///
/// ```text
/// | 0xF4 | version u8 | 0 u16 | nonce 16 B | Noise IK message 2 |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound<'a> {
    /// The BIND's.
    pub nonce: Nonce,
    /// Carries [`BindResult`].
    pub noise: &'a [u8],
}

impl<'a> Bound<'a> {
    /// Bytes of the longest frame.
    pub const LEN_MAX: usize = 4 + 16 + handshake::OVERHEAD + BindResult::LEN_MAX;

    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        Writer::with_capacity(20 + self.noise.len())
            .bytes(&[first_byte::BOUND, VERSION, 0, 0])
            .bytes(&self.nonce.0)
            .bytes(self.noise)
            .finish()
    }

    /// # Errors
    /// Another version, a Noise message that is too short or too long.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram, "bound");
        if reader.array()? != [first_byte::BOUND, VERSION, 0, 0] {
            return Err(Malformed("bound version"));
        }
        let nonce = Nonce(reader.array()?);
        let noise = reader.rest();
        let sealed = handshake::OVERHEAD + 1..=handshake::OVERHEAD + BindResult::LEN_MAX;
        if !sealed.contains(&noise.len()) {
            return Err(Malformed("bound length"));
        }
        Ok(Self { nonce, noise })
    }
}

/// What a relay says under Noise message 2, and in RESUMED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindResult {
    /// Result 0.
    Lease(Box<Lease>),
    /// Any other result, with the relay's clock in seconds since 1970.
    Refused {
        /// Why.
        reason: Refusal,
        /// Lets a client tell whose clock is off.
        relay_time: u64,
    },
}

/// A lease as its client knows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Lease {
    /// The slot at the relay.
    pub handle: Handle,
    /// Goes into every data frame.
    pub tag: Tag,
    /// Seals control messages from the client.
    pub key_to_relay: Zeroizing<[u8; 32]>,
    /// Opens control messages from the relay.
    pub key_to_client: Zeroizing<[u8; 32]>,
    /// The client's address as the relay sees it.
    pub reflexive: SocketAddr,
    /// Seconds without a frame after which the relay drops the lease.
    pub idle_timeout_s: u16,
    /// Seconds within which the first frame must use the lease.
    pub pending_timeout_s: u16,
    /// Proves to the relay, after its restart, that this client held the lease.
    pub resumption_key: Zeroizing<[u8; 32]>,
    /// Opaque to the client, 1 to [`super::resume::TICKET_LEN_MAX`] bytes.
    pub resumption_ticket: Vec<u8>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("handle", &self.handle)
            .field("reflexive", &self.reflexive)
            .finish_non_exhaustive()
    }
}

/// Why a relay gives no lease. A number once used stays here for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Refusal {
    /// 1: the ticket's signature or signing key is unknown to the relay.
    BadTicket = 1,
    /// 2: the ticket's time is over.
    Expired = 2,
    /// 3: the ticket's time has not come.
    NotYetValid = 3,
    /// 4: the ticket is for another pool or for other relays.
    WrongRelay = 4,
    /// 5: the ticket names another key than the handshake.
    WrongKey = 5,
    /// 6: control has revoked this generation of the member.
    Revoked = 6,
    /// 7: two instances of one device take the lease from each other.
    Duplicate = 7,
    /// 8: the relay's table is full.
    Full = 8,
    /// 9: the stamp is not newer than the last one.
    Replayed = 9,
    /// 10: the relay drains and takes no new leases.
    Draining = 10,
    /// 11: the relay's operator has banned this key or this session.
    Banned = 11,
}

impl Refusal {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::BadTicket,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongRelay,
        Self::WrongKey,
        Self::Revoked,
        Self::Duplicate,
        Self::Full,
        Self::Replayed,
        Self::Draining,
        Self::Banned,
    ];

    /// The name in metrics and in `status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadTicket => "bad_ticket",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongRelay => "wrong_relay",
            Self::WrongKey => "wrong_key",
            Self::Revoked => "revoked",
            Self::Duplicate => "duplicate",
            Self::Full => "full",
            Self::Replayed => "replayed",
            Self::Draining => "draining",
            Self::Banned => "banned",
        }
    }

    fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == number)
    }
}

impl BindResult {
    const LEASE_LEN: usize = 1 + 4 + 4 + 32 + 32 + 18 + 2 + 2 + 32;
    /// Bytes of the longest result.
    pub const LEN_MAX: usize = Self::LEASE_LEN + super::resume::TICKET_LEN_MAX;

    /// The payload's bytes.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let bytes = match self {
            Self::Refused { reason, relay_time } => {
                Writer::with_capacity(9).u8(*reason as u8).u64(*relay_time).finish()
            }
            Self::Lease(lease) => Writer::with_capacity(Self::LEN_MAX)
                .u8(0)
                .u32(lease.handle.0)
                .u32(lease.tag.0)
                .bytes(&*lease.key_to_relay)
                .bytes(&*lease.key_to_client)
                .address(lease.reflexive)
                .u16(lease.idle_timeout_s)
                .u16(lease.pending_timeout_s)
                .bytes(&*lease.resumption_key)
                .bytes(&lease.resumption_ticket)
                .finish(),
        };
        Zeroizing::new(bytes)
    }

    /// # Errors
    /// Another length, an unknown refusal.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload, "bind result");
        let result = reader.u8()?;
        if result != 0 {
            let reason = Refusal::from_wire(result).ok_or(Malformed("refusal"))?;
            let relay_time = reader.u64()?;
            reader.finish()?;
            return Ok(Self::Refused { reason, relay_time });
        }
        let lease = Lease {
            handle: Handle(reader.u32()?),
            tag: Tag(reader.u32()?),
            key_to_relay: Zeroizing::new(reader.array()?),
            key_to_client: Zeroizing::new(reader.array()?),
            reflexive: reader.address()?,
            idle_timeout_s: reader.u16()?,
            pending_timeout_s: reader.u16()?,
            resumption_key: Zeroizing::new(reader.array()?),
            resumption_ticket: reader.rest().to_vec(),
        };
        if !(1..=super::resume::TICKET_LEN_MAX).contains(&lease.resumption_ticket.len()) {
            return Err(Malformed("resumption ticket"));
        }
        Ok(Self::Lease(Box::new(lease)))
    }
}
