use lanrage_proto::SessionId;
use lanrage_proto::api::{CreateInvite, ErrorCode};
use lanrage_proto::party::SealedSecret;

use super::limits::{INVITE_LIFETIME_MAX_S, INVITE_USES_MAX, SEALED_SECRET_LEN};
use super::{Refusal, refuse};

/// An invite as the store has it, open or closed.
#[derive(Clone, Debug)]
pub(crate) struct InviteRow {
    pub(crate) session: SessionId,
    /// Absent once the invite is closed.
    pub(crate) sealed: Option<SealedSecret>,
    pub(crate) expires: u64,
    pub(crate) uses_left: u16,
    pub(crate) void: bool,
}

/// The answer for an invite that control has never had, or has forgotten.
pub(crate) fn unknown() -> Refusal {
    refuse(ErrorCode::InviteUnknown, "the server does not know this invite: ask for a new one")
}

impl InviteRow {
    /// The sealed secret of an invite that can still be used.
    ///
    /// # Errors
    /// Why it cannot: [`ErrorCode::InviteVoid`], [`ErrorCode::InviteUsedUp`],
    /// [`ErrorCode::InviteExpired`].
    pub(crate) fn usable(&self, now: u64) -> Result<&SealedSecret, Refusal> {
        let (code, message) = match &self.sealed {
            Some(sealed) if self.expires > now && !self.void => return Ok(sealed),
            _ if self.void => (
                ErrorCode::InviteVoid,
                "the invite is void since a member was kicked or the party ended: ask for a new one",
            ),
            _ if self.uses_left == 0 => {
                (ErrorCode::InviteUsedUp, "the invite is used up: ask for a new one")
            }
            _ => (ErrorCode::InviteExpired, "the invite has expired: ask for a new one"),
        };
        Err(refuse(code, message))
    }
}

/// Checks the shape of a new invite.
///
/// # Errors
/// [`ErrorCode::BadRequest`].
pub(crate) fn check_new(invite: &CreateInvite) -> Result<(), Refusal> {
    let message = if !(1..=INVITE_LIFETIME_MAX_S).contains(&invite.lifetime_s) {
        "an invite lives at most 30 days"
    } else if !(1..=INVITE_USES_MAX).contains(&invite.uses) {
        "an invite has 1 to 250 uses"
    } else if invite.sealed.0.0.len() != SEALED_SECRET_LEN {
        "the sealed secret has the wrong length: update LANrage"
    } else {
        return Ok(());
    };
    Err(refuse(ErrorCode::BadRequest, message))
}
