use std::path::PathBuf;

/// Why a relay was not told, or does not do it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody listens.
    #[error(
        "no relay listens at {}: start it, or name its --socket (its setting admin_socket)",
        .0.display()
    )]
    NoRelay(PathBuf),
    /// The kernel or the relay says that this user may not.
    #[error("not permitted at {}: {why}; run this as root or as the relay's user", path.display())]
    NotPermitted {
        /// The socket.
        path: PathBuf,
        /// Who says so.
        why: String,
    },
    /// The relay does not do what was asked.
    #[error("{0}")]
    Refused(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// For `ctl --help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  any other failure
  2  wrong usage
  3  no relay listens at the socket
  4  not permitted: neither root nor the relay's user
  5  the relay refuses; the message says why";

impl Failure {
    /// The process's exit code; see [`EXIT_CODES`].
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Other(_) => 1,
            Self::NoRelay(_) => 3,
            Self::NotPermitted { .. } => 4,
            Self::Refused(_) => 5,
        }
    }
}
