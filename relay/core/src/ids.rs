//! The table numbers things with types of its own, so that it depends on nothing; the wire has its
//! own, too. Here one becomes the other.

use lanrage_proto::{Handle, Member, SessionId, Tag};
use lanrage_relay_table as table;

pub(crate) fn handle_from_wire(handle: Handle) -> table::Handle {
    table::Handle::from_bits(handle.0)
}

pub(crate) fn handle_to_wire(handle: table::Handle) -> Handle {
    Handle(handle.to_bits())
}

pub(crate) fn tag_to_wire(tag: table::Tag) -> Tag {
    Tag(tag.0)
}

pub(crate) fn member(member: Member) -> table::Member {
    table::Member::new(member.number()).expect("wire and table number members 1..=250")
}

pub(crate) fn member_to_wire(member: table::Member) -> Member {
    Member::new(member.number()).expect("wire and table number members 1..=250")
}

pub(crate) fn session(session: SessionId) -> table::SessionId {
    table::SessionId(session.0)
}

pub(crate) fn session_to_wire(session: table::SessionId) -> SessionId {
    SessionId(session.0)
}
