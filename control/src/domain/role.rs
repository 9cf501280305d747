use lanrage_proto::api::{ErrorCode, Role};
use lanrage_proto::{DeviceKey, Member};

use super::{MemberRow, Party, Refusal, refuse};

/// # Errors
/// [`ErrorCode::Forbidden`] for plain members.
pub(crate) fn may_invite(role: Role) -> Result<(), Refusal> {
    match role {
        Role::Owner | Role::Promoted => Ok(()),
        Role::Member => {
            Err(refuse(ErrorCode::Forbidden, "only the owner and promoted members invite"))
        }
    }
}

/// The owner kicks anybody else, a promoted member kicks plain members.
///
/// # Errors
/// [`ErrorCode::Forbidden`].
pub(crate) fn may_kick(kicker: &MemberRow, target: &MemberRow) -> Result<(), Refusal> {
    match (kicker.role, target.role) {
        _ if kicker.member == target.member => {
            Err(refuse(ErrorCode::Forbidden, "nobody kicks itself: leave the party"))
        }
        (Role::Owner, _) | (Role::Promoted, Role::Member) => Ok(()),
        (Role::Promoted, _) => {
            Err(refuse(ErrorCode::Forbidden, "only the owner kicks promoted members"))
        }
        (Role::Member, _) => {
            Err(refuse(ErrorCode::Forbidden, "only the owner and promoted members kick"))
        }
    }
}

/// # Errors
/// [`ErrorCode::Forbidden`] for all but the owner and towards the owner itself,
/// [`ErrorCode::BadRequest`] for a role that cannot be given.
pub(crate) fn may_promote(
    caller: &MemberRow,
    target: &MemberRow,
    role: Role,
) -> Result<(), Refusal> {
    match (caller.role, target.role, role) {
        (Role::Member | Role::Promoted, _, _) => {
            Err(refuse(ErrorCode::Forbidden, "only the owner promotes"))
        }
        (Role::Owner, _, Role::Owner) => {
            Err(refuse(ErrorCode::BadRequest, "the role is promoted or member"))
        }
        (Role::Owner, Role::Owner, _) => {
            Err(refuse(ErrorCode::Forbidden, "the owner stays the owner until it leaves"))
        }
        (Role::Owner, _, Role::Promoted | Role::Member) => Ok(()),
    }
}

/// Who becomes owner when `except` no longer is: the eldest promoted member, else the eldest.
/// Among the candidates only those that `present` says are still about count, if any is.
pub(crate) fn successor(
    party: &Party,
    except: Member,
    present: impl Fn(&DeviceKey) -> bool,
) -> Option<Member> {
    let rank = |row: &&MemberRow| {
        (!present(&row.device), row.role != Role::Promoted, row.joined, row.member)
    };
    party.members().filter(|row| row.member != except).min_by_key(rank).map(|row| row.member)
}
