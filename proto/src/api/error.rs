use serde::{Deserialize, Serialize};

/// The body of every response with a status of 400 or above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what is wrong and what to do.
    pub message: String,
}

/// What went wrong, for programs. The HTTP status follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 400: the body is not what the path takes.
    BadRequest,
    /// 401: no token, or one that control does not know: register again.
    Unauthorized,
    /// 403: the proof does not fit the key or the connection.
    BadProof,
    /// 403: the caller's role does not allow it.
    Forbidden,
    /// 404: no such party, member or path, or the caller is not in it.
    NotFound,
    /// 404: no such invite.
    InviteUnknown,
    /// 410: its time is over.
    InviteExpired,
    /// 410: all its uses are spent.
    InviteUsedUp,
    /// 410: a kick voided it.
    InviteVoid,
    /// 409: the epoch or another precondition has moved on: read again and retry.
    Conflict,
    /// 409: another member has the name.
    NameTaken,
    /// 409: no free member number.
    PartyFull,
    /// 409: no relay serves.
    NoRelay,
    /// 429: too many requests from one place.
    RateLimited,
    /// 403: the enrolment token is unknown, spent or expired.
    BadEnrolment,
    /// 500: control's fault.
    Internal,
    /// A code this program does not know; see [`ErrorCode::of_status`].
    #[serde(other)]
    Other,
}

impl ErrorCode {
    /// What an unknown code is treated as: the most general one of its HTTP status (§10).
    pub const fn of_status(status: u16) -> Self {
        match status {
            400 => Self::BadRequest,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            409 => Self::Conflict,
            410 => Self::InviteVoid,
            429 => Self::RateLimited,
            500..=599 => Self::Internal,
            _ => Self::Other,
        }
    }

    /// The HTTP status that goes with the code.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::BadProof | Self::Forbidden | Self::BadEnrolment => 403,
            Self::NotFound | Self::InviteUnknown => 404,
            Self::Conflict | Self::NameTaken | Self::PartyFull | Self::NoRelay => 409,
            Self::InviteExpired | Self::InviteUsedUp | Self::InviteVoid => 410,
            Self::RateLimited => 429,
            Self::Internal | Self::Other => 500,
        }
    }
}
