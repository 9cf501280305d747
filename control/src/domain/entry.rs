use lanrage_proto::TunnelKey;
use lanrage_proto::api::ErrorCode;
use lanrage_proto::party::Entry;

use super::{MemberRow, Party, Refusal, refuse};

/// # Errors
/// [`ErrorCode::BadRequest`] for a key of low order: nobody could seal a new epoch's secret to it.
pub(crate) fn check_tunnel_key(key: &TunnelKey) -> Result<(), Refusal> {
    if key.is_usable() {
        return Ok(());
    }
    Err(refuse(
        ErrorCode::BadRequest,
        "the tunnel key is a point of low order, no key of a private one: make a new key pair",
    ))
}

/// Whether an entry is the caller's own and of today. Its MAC only members can check.
///
/// # Errors
/// [`ErrorCode::Conflict`] for another epoch or generation, [`ErrorCode::NameTaken`],
/// [`ErrorCode::BadProof`] for a signature that does not hold, [`ErrorCode::Forbidden`] for
/// another member's entry.
pub(crate) fn check(party: &Party, caller: &MemberRow, entry: &Entry) -> Result<(), Refusal> {
    let body = &entry.body;
    if body.session != party.session
        || body.member != caller.member
        || body.device != caller.device
        || body.tunnel != caller.tunnel
    {
        return Err(refuse(
            ErrorCode::Forbidden,
            "the entry is not of the caller's party, number, device and tunnel key",
        ));
    }
    if body.generation != caller.generation || entry.epoch != party.epoch {
        return Err(refuse(
            ErrorCode::Conflict,
            "the entry is of another generation or epoch: read the party again and sign anew",
        ));
    }
    if !entry.is_signed() {
        return Err(refuse(ErrorCode::BadProof, "the entry's signature does not hold"));
    }
    let others = party.members().filter(|row| row.member != caller.member);
    if others.into_iter().any(|row| row.name == body.name) {
        return Err(refuse(
            ErrorCode::NameTaken,
            "another member has this name: choose another and sign anew",
        ));
    }
    Ok(())
}
