//! What control decides, as plain functions of values: no clock, no store, no socket.

/// The limits and times of the service, in one place.
pub(crate) mod limits;

/// Parties and members as decisions see them.
mod party;
pub(crate) use party::{MemberRow, Party, party_state};

/// Which member number a device gets.
pub(crate) mod seat;

/// Names and networks.
pub(crate) mod naming;

/// Who may do what, and who follows an owner.
pub(crate) mod role;

/// Whether an invite can be used.
pub(crate) mod invite;

/// Whether a directory entry, and the key in it, fits its member.
pub(crate) mod entry;

/// Whether a kick is whole.
pub(crate) mod kick;

/// Which relays a party uses.
pub(crate) mod relays;

/// Which key signs, and which keys are listed.
pub(crate) mod keys;

/// A refusal with its code and what to do.
mod refusal;
pub(crate) use refusal::{Refusal, refuse};
