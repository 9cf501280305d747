use crate::datagram::first_byte;
use crate::ids::{Destination, Handle, Member, RelayId, Tag};
use crate::wire::{Malformed, Writer};

/// What stands before the payload.
pub const HEADER_LEN: usize = 16;
/// The longest payload.
pub const PAYLOAD_LEN_MAX: usize = super::DATAGRAM_LEN_MAX - HEADER_LEN;

/// A data frame's header as a client sends it, unchecked (§3.1).
///
/// ```text
/// | 0xF1 | flags | egress relay u16 | destination u16 | source u16 | handle u32 | tag u32 |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Must be 0 in version 1.
    pub flags: u8,
    /// The relay that delivers; 0 means the one that receives the frame.
    pub egress: RelayId,
    /// See [`Destination`].
    pub destination: u16,
    /// Must be the lease's member.
    pub source: u16,
    /// The sender's lease.
    pub handle: Handle,
    /// The lease's tag.
    pub tag: Tag,
}

impl Sent {
    /// A frame from `source`'s own lease.
    pub const fn new(
        egress: RelayId,
        destination: Destination,
        source: Member,
        handle: Handle,
        tag: Tag,
    ) -> Self {
        Self {
            flags: 0,
            egress,
            destination: destination.to_wire(),
            source: source.number() as u16,
            handle,
            tag,
        }
    }

    /// Reads the fields; the first byte is not looked at.
    pub fn decode(header: &[u8; HEADER_LEN]) -> Self {
        let [_, flags, e0, e1, d0, d1, s0, s1, h0, h1, h2, h3, t0, t1, t2, t3] = *header;
        Self {
            flags,
            egress: RelayId(u16::from_be_bytes([e0, e1])),
            destination: u16::from_be_bytes([d0, d1]),
            source: u16::from_be_bytes([s0, s1]),
            handle: Handle(u32::from_be_bytes([h0, h1, h2, h3])),
            tag: Tag(u32::from_be_bytes([t0, t1, t2, t3])),
        }
    }

    /// The header's bytes.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[0] = first_byte::DATA;
        header[1] = self.flags;
        header[2..4].copy_from_slice(&self.egress.0.to_be_bytes());
        header[4..6].copy_from_slice(&self.destination.to_be_bytes());
        header[6..8].copy_from_slice(&self.source.to_be_bytes());
        header[8..12].copy_from_slice(&self.handle.0.to_be_bytes());
        header[12..16].copy_from_slice(&self.tag.0.to_be_bytes());
        header
    }
}

/// Turns a header as sent into one as delivered, in place: handle and tag stay between the client
/// and its relay, and the receiver learns by which relay to answer (§3.2).
pub fn overwrite_for_delivery(header: &mut [u8; HEADER_LEN], ingress: RelayId) {
    let [high, low] = ingress.0.to_be_bytes();
    header[8..].copy_from_slice(&[high, low, 0, 0, 0, 0, 0, 0]);
}

/// A data frame's header as a relay delivers it (§3.2).
///
/// ```text
/// | 0xF1 | 0 | egress relay u16 | destination u16 | source u16 | ingress relay u16 | 0 (6 bytes) |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The relay that delivered, as the sender named it.
    pub egress: RelayId,
    /// The receiver, or everyone.
    pub destination: Destination,
    /// Whose lease the frame came by: checked by the relay.
    pub source: Member,
    /// The relay that received the frame from its sender.
    pub ingress: RelayId,
}

impl Delivered {
    /// Splits a delivered frame into header and payload.
    ///
    /// # Errors
    /// Too short, too long, flags or the last six bytes not 0, no such member.
    pub fn decode(datagram: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (header, payload) = datagram
            .split_first_chunk::<HEADER_LEN>()
            .filter(|(_, payload)| payload.len() <= PAYLOAD_LEN_MAX)
            .ok_or(Malformed("data frame length"))?;
        let [kind, flags, e0, e1, d0, d1, s0, s1, i0, i1, zeros @ ..] = *header;
        if kind != first_byte::DATA || flags != 0 || zeros != [0; 6] {
            return Err(Malformed("data frame header"));
        }
        let source = u8::try_from(u16::from_be_bytes([s0, s1])).ok().and_then(Member::new);
        let delivered = Self {
            egress: RelayId(u16::from_be_bytes([e0, e1])),
            destination: Destination::from_wire(u16::from_be_bytes([d0, d1]))
                .ok_or(Malformed("data frame destination"))?,
            source: source.ok_or(Malformed("data frame source"))?,
            ingress: RelayId(u16::from_be_bytes([i0, i1])),
        };
        Ok((delivered, payload))
    }

    /// The header's bytes.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let sent = Sent::new(self.egress, self.destination, self.source, Handle(0), Tag(0));
        let mut header = sent.encode();
        overwrite_for_delivery(&mut header, self.ingress);
        header
    }
}

/// First byte of a payload that is not WireGuard's (§3.3).
pub mod payload {
    /// A broadcast under the sender's key.
    pub const SEALED_BROADCAST: u8 = 0x10;
    /// A frame to oneself.
    pub const SELF_PROBE: u8 = 0x11;
}

/// The payload of a self-addressed frame: liveness, round trip and loss in one (§3.4).
///
/// ```text
/// | 0x11 | 0 (3 bytes) | sequence u32 | cookie u64 |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfProbe {
    /// Counts this lease's probes.
    pub sequence: u32,
    /// Random for each probe: nobody off the path can answer for the relay.
    pub cookie: u64,
}

impl SelfProbe {
    /// Bytes of the payload.
    pub const LEN: usize = 16;

    /// The payload's bytes.
    pub fn encode(self) -> Vec<u8> {
        Writer::with_capacity(Self::LEN)
            .u8(payload::SELF_PROBE)
            .zeros(3)
            .u32(self.sequence)
            .u64(self.cookie)
            .finish()
    }

    /// `None` for any other payload.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = crate::wire::Reader::new(payload, "self probe");
        let kind = reader.u32().ok()?;
        let probe = Self { sequence: reader.u32().ok()?, cookie: reader.u64().ok()? };
        let complete = kind == u32::from(payload::SELF_PROBE) << 24 && reader.finish().is_ok();
        complete.then_some(probe)
    }
}
