use crate::datagram::first_byte;
use crate::ids::{Handle, Member, Tag};
use crate::wire::{Malformed, Reader};

/// A relay's word on a data frame it did not forward; believed only after a check (§3.5).
///
/// ```text
/// | 0xF6 | kind u8 | destination u16 | handle u32 | tag u32 |
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
}

impl Hint {
    /// Never longer than the data frame it answers.
    pub const LEN: usize = 12;

    /// The frame's bytes.
    pub fn encode(self) -> [u8; Self::LEN] {
        let (kind, destination) = match self.kind {
            HintKind::NoLease => (1, 0),
            HintKind::NoPeer(member) => (2, member.number()),
        };
        let mut frame = [first_byte::HINT, kind, 0, destination, 0, 0, 0, 0, 0, 0, 0, 0];
        frame[4..8].copy_from_slice(&self.handle.0.to_be_bytes());
        frame[8..12].copy_from_slice(&self.tag.0.to_be_bytes());
        frame
    }

    /// # Errors
    /// Another length, an unknown kind, no such member.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram, "hint");
        let [first, kind] = reader.array()?;
        let destination = reader.u16()?;
        let handle = Handle(reader.u32()?);
        let tag = Tag(reader.u32()?);
        reader.finish()?;
        let member = u8::try_from(destination).ok().and_then(Member::new);
        let kind = match (first, kind, destination, member) {
            (first_byte::HINT, 1, 0, _) => HintKind::NoLease,
            (first_byte::HINT, 2, _, Some(member)) => HintKind::NoPeer(member),
            _ => return Err(Malformed("hint kind")),
        };
        Ok(Self { kind, handle, tag })
    }
}

const _: () = assert!(Hint::LEN <= super::data::HEADER_LEN);
