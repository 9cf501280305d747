use crate::datagram::first_byte;
use crate::ids::{Handle, Member, RelayId, Tag};
use crate::wire::{Malformed, Reader};

/// A relay's word on a data frame it did not forward; believed only after a check (§3.5).
///
/// ```text
/// | 0xF6 | kind u8 | destination u16 | handle u32 | tag u32 |                    NO_LEASE, NO_PEER
/// | 0xF6 | kind u8 | destination u16 | handle u32 | tag u32 | egress relay u16 |   NO_PEER_THERE
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// What is missing.
    pub kind: HintKind,
    /// As the frame named it.
    pub handle: Handle,
    /// As the frame named it: shows that the sender of the hint saw the frame.
    pub tag: Tag,
}

/// What a hint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintKind {
    /// Kind 1: handle, tag and address name no lease: rebind.
    NoLease,
    /// Kind 2: this member of the session has no lease here: try the next relay.
    NoPeer(Member),
    /// Kind 3: the frame's egress relay, another one, knows no lease of this member of the session,
    /// or is not known itself: try another way.
    NoPeerThere(Member, RelayId),
}

impl Hint {
    const LEN: usize = 12;
    /// Never longer than the data frame it answers.
    pub const LEN_MAX: usize = Self::LEN + 2;

    /// Writes the frame into `buffer` and returns it.
    pub fn encode(self, buffer: &mut [u8; Self::LEN_MAX]) -> &[u8] {
        let (kind, destination, egress) = match self.kind {
            HintKind::NoLease => (1, 0, None),
            HintKind::NoPeer(member) => (2, member.number(), None),
            HintKind::NoPeerThere(member, relay) => (3, member.number(), Some(relay)),
        };
        buffer[..4].copy_from_slice(&[first_byte::HINT, kind, 0, destination]);
        buffer[4..8].copy_from_slice(&self.handle.0.to_be_bytes());
        buffer[8..Self::LEN].copy_from_slice(&self.tag.0.to_be_bytes());
        match egress {
            None => &buffer[..Self::LEN],
            Some(RelayId(relay)) => {
                buffer[Self::LEN..].copy_from_slice(&relay.to_be_bytes());
                buffer
            }
        }
    }

    /// # Errors
    /// Another length, an unknown kind, no such member.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram, "hint");
        let [first, kind] = reader.array()?;
        let destination = reader.u16()?;
        let handle = Handle(reader.u32()?);
        let tag = Tag(reader.u32()?);
        let member = u8::try_from(destination).ok().and_then(Member::new);
        let kind = match (first, kind, destination, member) {
            (first_byte::HINT, 1, 0, _) => HintKind::NoLease,
            (first_byte::HINT, 2, _, Some(member)) => HintKind::NoPeer(member),
            (first_byte::HINT, 3, _, Some(member)) => {
                HintKind::NoPeerThere(member, RelayId(reader.u16()?))
            }
            _ => return Err(Malformed("hint kind")),
        };
        reader.finish()?;
        Ok(Self { kind, handle, tag })
    }
}

const _: () = assert!(Hint::LEN_MAX <= super::data::HEADER_LEN);
