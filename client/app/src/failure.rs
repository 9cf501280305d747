//! Why a command failed: a kind that decides the exit code, and a sentence that says what to do.

use std::fmt;
use std::io;

use lanrage_client_core::{ConfigError, KickError, PingError};
use lanrage_control_client::Error as ControlError;
use lanrage_proto::api::ErrorCode;
use lanrage_proto::map::BadMap;
use lanrage_proto::party::{BadInvite, BadServerAddress};
use serde::{Deserialize, Serialize};

use crate::nic::{Network, NicError, Overlap};
use crate::state::{Server, StateError};

/// A command's failure, as the daemon answers it and the command line prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub kind: FailureKind,
    /// For people.
    pub message: String,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// None of the others.
    Other,
    /// The command or one of its values makes no sense.
    Usage,
    /// No daemon answers at the socket, or the socket may not be used.
    NoDaemon,
    /// A capability or the right to a file is missing.
    Rights,
    /// The text is no invite.
    InviteMalformed,
    /// The server does not know the invite.
    InviteUnknown,
    /// Its time is over.
    InviteExpired,
    /// All its uses are spent.
    InviteUsedUp,
    /// A kick voided it.
    InviteVoid,
    /// It does not open what the server keeps for it.
    InviteWrongKey,
    /// The control service does not answer.
    Unreachable,
    /// Something else than the pinned control service answers.
    OtherRoot,
    /// The party's network is in use on this machine.
    Overlap,
    /// The state directory is not what was written.
    StateCorrupt,
    /// The state directory was written by a newer program.
    StateNewer,
    /// Another daemon has the state directory.
    StateInUse,
    /// No free place in the party.
    PartyFull,
    /// No such party or member.
    NotFound,
    /// Control does not list this device in the party.
    Unlisted,
    /// The member's role does not allow it.
    Forbidden,
    /// Something else happened first, or is under way.
    Conflict,
}

/// Every exit code of the program, as `--help` shows them.
pub const EXIT_CODES: [(u8, &str); 10] = [
    (0, "done"),
    (1, "any other failure"),
    (2, "wrong usage"),
    (3, "no daemon is running, or its socket may not be used"),
    (4, "no right to make the network interface or to use the state directory"),
    (5, "the invite is malformed, unknown, expired, used up, void, or has the wrong key"),
    (6, "the control service cannot be reached, or is another one than the invite names"),
    (7, "the party's network overlaps a route of this machine"),
    (8, "the state directory is corrupt, from a newer version, or in use"),
    (9, "the party is full, not found, or changed meanwhile; or the role does not allow it"),
];

impl FailureKind {
    /// The program's exit code, from [`EXIT_CODES`].
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Usage => 2,
            Self::NoDaemon => 3,
            Self::Rights => 4,
            Self::InviteMalformed
            | Self::InviteUnknown
            | Self::InviteExpired
            | Self::InviteUsedUp
            | Self::InviteVoid
            | Self::InviteWrongKey => 5,
            Self::Unreachable | Self::OtherRoot => 6,
            Self::Overlap => 7,
            Self::StateCorrupt | Self::StateNewer | Self::StateInUse => 8,
            Self::PartyFull
            | Self::NotFound
            | Self::Unlisted
            | Self::Forbidden
            | Self::Conflict => 9,
        }
    }

    /// A refusal of the kernel.
    pub(crate) fn of_io(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied { Self::Rights } else { Self::Other }
    }
}

impl Failure {
    /// A failure of that kind.
    pub fn new(kind: FailureKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string() }
    }

    /// The party's network cannot be used here.
    pub fn overlap(party: Network, overlap: &Overlap) -> Self {
        let anew = if party.address.is_ipv4() { " with another --subnet" } else { "" };
        let message = format!(
            "the party's network {party} overlaps {overlap}: remove that route or address, or have \
             the party made anew{anew}"
        );
        Self::new(FailureKind::Overlap, message)
    }

    /// Control at `server` does not list this device in the party `name`.
    pub fn unlisted(name: &str, server: &Server) -> Self {
        let message = format!(
            "control at {server} does not list this device in the party {name}: it may have been \
             restored from an older backup, the party may have ended, or the device was put out \
             more than 30 days ago. Ask the server's operator or the party's owner. The party is \
             kept, and comes up by itself when it is listed again; `lanrage party leave` forgets it"
        );
        Self::new(FailureKind::Unlisted, message)
    }

    /// Nothing is active that the command could be about.
    pub fn no_active_party() -> Self {
        let message =
            "no party is active: create or join one, or pick one with `lanrage party switch`";
        Self::new(FailureKind::NotFound, message)
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let kind = match &error {
            StateError::InUse { .. } => FailureKind::StateInUse,
            StateError::Newer { .. } => FailureKind::StateNewer,
            StateError::Corrupt { .. } => FailureKind::StateCorrupt,
            StateError::Io { source, .. } => FailureKind::of_io(source),
        };
        if kind == FailureKind::Rights {
            return Self::new(kind, format!("{error}: run as root (sudo lanrage …)"));
        }
        Self::new(kind, error)
    }
}

impl From<NicError> for Failure {
    fn from(error: NicError) -> Self {
        let kind = match &error {
            NicError::Rights { .. } | NicError::NoDriver => FailureKind::Rights,
            NicError::NameTaken { .. } => FailureKind::Other,
            NicError::BadName { .. } => FailureKind::Usage,
            NicError::Refused { source, .. } => FailureKind::of_io(source),
        };
        Self::new(kind, error)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let kind = match &error {
            ControlError::Unreachable { .. }
            | ControlError::Tls { .. }
            | ControlError::Broken { .. }
            | ControlError::TimedOut { .. } => FailureKind::Unreachable,
            ControlError::OtherRoot { .. } => FailureKind::OtherRoot,
            ControlError::BadAnswer { .. } => FailureKind::Other,
            ControlError::Api(error) => match error.code {
                ErrorCode::InviteUnknown => FailureKind::InviteUnknown,
                ErrorCode::InviteExpired => FailureKind::InviteExpired,
                ErrorCode::InviteUsedUp => FailureKind::InviteUsedUp,
                ErrorCode::InviteVoid => FailureKind::InviteVoid,
                ErrorCode::PartyFull => FailureKind::PartyFull,
                ErrorCode::NotFound => FailureKind::NotFound,
                ErrorCode::Forbidden => FailureKind::Forbidden,
                ErrorCode::Conflict | ErrorCode::NameTaken => FailureKind::Conflict,
                ErrorCode::BadRequest => FailureKind::Usage,
                ErrorCode::RateLimited => FailureKind::Unreachable,
                ErrorCode::Unauthorized
                | ErrorCode::BadProof
                | ErrorCode::NoRelay
                | ErrorCode::BadEnrolment
                | ErrorCode::Internal
                | ErrorCode::Other => FailureKind::Other,
            },
        };
        Self::new(kind, error)
    }
}

impl From<BadInvite> for Failure {
    fn from(error: BadInvite) -> Self {
        Self::new(FailureKind::InviteMalformed, error)
    }
}

impl From<BadServerAddress> for Failure {
    fn from(error: BadServerAddress) -> Self {
        Self::new(FailureKind::Usage, error)
    }
}

impl From<BadMap> for Failure {
    fn from(error: BadMap) -> Self {
        let kind = match error {
            BadMap::OtherRoot | BadMap::BadSignature => FailureKind::OtherRoot,
            BadMap::Unreadable => FailureKind::Other,
        };
        Self::new(kind, error)
    }
}

impl From<KickError> for Failure {
    fn from(error: KickError) -> Self {
        let kind = match error {
            KickError::NoSuchMember(_) => FailureKind::NotFound,
            KickError::NotAllowed => FailureKind::Forbidden,
            KickError::TooMany => FailureKind::Conflict,
        };
        Self::new(kind, error)
    }
}

impl From<PingError> for Failure {
    fn from(error: PingError) -> Self {
        let kind = match error {
            PingError::NoSuchMember(_) => FailureKind::NotFound,
            PingError::TooMany => FailureKind::Conflict,
        };
        Self::new(kind, error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(FailureKind::Other, error)
    }
}

#[cfg(test)]
mod tests {
    use lanrage_proto::api::ApiError;

    use super::*;

    #[test]
    fn every_kind_has_a_documented_code() {
        let kinds = [
            "other",
            "usage",
            "no_daemon",
            "rights",
            "invite_malformed",
            "invite_unknown",
            "invite_expired",
            "invite_used_up",
            "invite_void",
            "invite_wrong_key",
            "unreachable",
            "other_root",
            "overlap",
            "state_corrupt",
            "state_newer",
            "state_in_use",
            "party_full",
            "not_found",
            "unlisted",
            "forbidden",
            "conflict",
        ];
        let mut used: Vec<u8> = kinds
            .iter()
            .map(|kind| serde_json::from_value::<FailureKind>((*kind).into()).unwrap().exit_code())
            .collect();
        used.sort_unstable();
        used.dedup();
        let documented: Vec<u8> = EXIT_CODES.iter().map(|(code, _)| *code).collect();
        assert_eq!(used, documented[1..]);
    }

    #[test]
    fn refusals_of_control_keep_their_message_and_get_their_code() {
        for (code, exit_code) in [
            (ErrorCode::InviteUnknown, 5),
            (ErrorCode::InviteExpired, 5),
            (ErrorCode::InviteUsedUp, 5),
            (ErrorCode::InviteVoid, 5),
            (ErrorCode::PartyFull, 9),
            (ErrorCode::NotFound, 9),
            (ErrorCode::Forbidden, 9),
            (ErrorCode::Conflict, 9),
            (ErrorCode::Internal, 1),
        ] {
            let error = ApiError { code, message: "what to do".to_owned() };
            let failure = Failure::from(ControlError::Api(error));
            assert_eq!((failure.kind.exit_code(), &*failure.message), (exit_code, "what to do"));
        }
        let silent = ControlError::TimedOut { endpoint: "a:1".to_owned() };
        assert_eq!(Failure::from(silent).kind.exit_code(), 6);
        let other = ControlError::OtherRoot { endpoint: "a:1".to_owned() };
        assert_eq!(Failure::from(other).kind, FailureKind::OtherRoot);
    }
}
