//! Messages between members, as IPv4 packets of protocol 253 (RFC 3692) inside their tunnel. They
//! are never read from nor written to a NIC.
//!
//! ```text
//! | IPv4 header, 20 B | version u8 | type u8 | length u16 | body |
//! ```

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::bytes::PartySecret;
use crate::ids::{Epoch, RelayId};
use crate::signed::KickRecord;
use crate::wire::{Malformed, Reader, Writer};

/// The IP protocol number of these messages.
pub const IP_PROTOCOL: u8 = 253;
/// What a fragment's packet has beside the piece it carries.
pub const FRAGMENT_OVERHEAD: usize = IPV4_HEADER_LEN + HEADER_LEN + 4;
const VERSION: u8 = 1;
const IPV4_HEADER_LEN: usize = 20;
/// Version 4, header length 5 × 4 bytes.
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
const HEADER_LEN: usize = 4;
/// Relays in one LEASES message: a party lists at most three, a change doubles them for a while.
const LEASES_MAX: usize = 6;

/// How a member receives by one of its leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum LeaseState {
    /// Self-addressed frames return.
    Alive = 1,
    /// At least one is missing: send here and by the next relay.
    Suspect = 2,
    /// Three are missing: do not send here.
    Dead = 3,
}

/// What a member says to another (§9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Type 1: answer with the same id.
    Echo {
        /// Chosen by the asker.
        id: u64,
    },
    /// Type 2.
    EchoReply {
        /// The asker's.
        id: u64,
    },
    /// Type 3: the sender's leases in order of preference, replacing what it said before.
    Leases {
        /// Grows with every change; acknowledged.
        sequence: u32,
        /// At most six.
        leases: Vec<(RelayId, LeaseState)>,
    },
    /// Type 4.
    LeasesAck {
        /// The LEASES message's.
        sequence: u32,
    },
    /// Type 5: someone was kicked; here is the next secret.
    NewEpoch {
        /// Control's word for it.
        record: Box<KickRecord>,
        /// The secret of `record.epoch`, if the record's commitment is to it.
        secret: PartySecret,
    },
    /// Type 6.
    NewEpochAck {
        /// The epoch the sender has taken.
        epoch: Epoch,
    },
    /// Type 7: a piece of an IP packet too large for one datagram (§9.5).
    Fragment {
        /// The same for all pieces of a packet.
        id: u16,
        /// 0 for the first piece.
        index: u8,
        /// Pieces of this packet.
        count: u8,
        /// The piece.
        piece: &'a [u8],
    },
}

impl<'a> Message<'a> {
    const fn kind(&self) -> u8 {
        match self {
            Self::Echo { .. } => 1,
            Self::EchoReply { .. } => 2,
            Self::Leases { .. } => 3,
            Self::LeasesAck { .. } => 4,
            Self::NewEpoch { .. } => 5,
            Self::NewEpochAck { .. } => 6,
            Self::Fragment { .. } => 7,
        }
    }

    fn body(&self) -> Zeroizing<Vec<u8>> {
        let writer = Writer::default();
        Zeroizing::new(match self {
            Self::Echo { id } | Self::EchoReply { id } => writer.u64(*id).finish(),
            Self::Leases { sequence, leases } => leases
                .iter()
                .take(LEASES_MAX)
                .fold(writer.u32(*sequence), |w, (relay, state)| w.u16(relay.0).u8(*state as u8))
                .finish(),
            Self::LeasesAck { sequence } => writer.u32(*sequence).finish(),
            Self::NewEpoch { record, secret } => {
                writer.bytes(&record.encode()).bytes(&secret.0).finish()
            }
            Self::NewEpochAck { epoch } => writer.u32(epoch.0).finish(),
            Self::Fragment { id, index, count, piece } => {
                writer.u16(*id).u8(*index).u8(*count).bytes(piece).finish()
            }
        })
    }

    /// The whole IPv4 packet, from one member's address to another's.
    pub fn encode(&self, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let body = self.body();
        let total = IPV4_HEADER_LEN + HEADER_LEN + body.len();
        let mut packet = Writer::with_capacity(total)
            .bytes(&[IPV4_WITHOUT_OPTIONS, 0])
            .u16(total as u16)
            .u32(0)
            .bytes(&[1, IP_PROTOCOL])
            .u16(0)
            .bytes(&from.octets())
            .bytes(&to.octets())
            .u8(VERSION)
            .u8(self.kind())
            .u16(body.len() as u16)
            .bytes(&body)
            .finish();
        let checksum = internet_checksum(&packet[..IPV4_HEADER_LEN]);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    /// Reads a packet that [`is_message`] told apart.
    ///
    /// # Errors
    /// IPv4 options, another version, an unknown type, a length or a field that does not fit.
    pub fn decode(packet: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(packet, "inner message");
        if reader.take(IPV4_HEADER_LEN)?[0] != IPV4_WITHOUT_OPTIONS {
            return Err(Malformed("inner message header"));
        }
        let [version, kind] = reader.array()?;
        let length = usize::from(reader.u16()?);
        let body = reader.rest().get(..length).ok_or(Malformed("inner message length"))?;
        if version != VERSION {
            return Err(Malformed("inner message version"));
        }
        let mut body = Reader::new(body, "inner message body");
        let message = match kind {
            1 => Self::Echo { id: body.u64()? },
            2 => Self::EchoReply { id: body.u64()? },
            3 => return Self::decode_leases(body),
            4 => Self::LeasesAck { sequence: body.u32()? },
            5 => Self::NewEpoch {
                record: Box::new(KickRecord::decode(&body.array()?)?),
                secret: PartySecret(body.array()?),
            },
            6 => Self::NewEpochAck { epoch: Epoch(body.u32()?) },
            7 => return Self::decode_fragment(body),
            _ => return Err(Malformed("inner message type")),
        };
        body.finish()?;
        Ok(message)
    }

    fn decode_leases(mut body: Reader<'a>) -> Result<Self, Malformed> {
        let sequence = body.u32()?;
        let mut leases = Vec::with_capacity(LEASES_MAX);
        while !body.rest().is_empty() {
            let relay = RelayId(body.u16()?);
            let state = match body.u8()? {
                1 => LeaseState::Alive,
                2 => LeaseState::Suspect,
                3 => LeaseState::Dead,
                _ => return Err(Malformed("lease state")),
            };
            if leases.len() == LEASES_MAX {
                return Err(Malformed("leases"));
            }
            leases.push((relay, state));
        }
        Ok(Self::Leases { sequence, leases })
    }

    fn decode_fragment(mut body: Reader<'a>) -> Result<Self, Malformed> {
        let id = body.u16()?;
        let [index, count] = body.array()?;
        let piece = body.rest();
        if index >= count || piece.is_empty() {
            return Err(Malformed("fragment"));
        }
        Ok(Self::Fragment { id, index, count, piece })
    }
}

/// Whether a packet is a message rather than a NIC's traffic. One with IPv4 options is a message
/// too, which [`Message::decode`] refuses, so that protocol 253 never reaches a NIC.
pub fn is_message(packet: &[u8]) -> bool {
    packet.first().is_some_and(|byte| byte >> 4 == 4) && packet.get(9) == Some(&IP_PROTOCOL)
}

/// RFC 1071, over an even number of bytes.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let sum: u32 =
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}
