use std::net::SocketAddr;
use std::process::ExitCode;

use crate::store::StoreError;

/// Why the program ends, each with its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line, environment or configuration file is wrong.
    #[error("{0}")]
    Configuration(String),
    /// The state directory cannot be used.
    #[error("{0}")]
    State(String),
    /// A listen address cannot be bound.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// By the kernel.
        reason: std::io::Error,
    },
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// The database cannot be read or written.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::State(error.to_string())
    }
}

/// The exit codes, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done, or stopped by SIGTERM or SIGINT
  1  another failure
  2  wrong usage or configuration
  3  the state directory cannot be used: corrupt, of a newer version, in use, or not permitted
  4  cannot bind a listen address";

impl Failure {
    /// See `EXIT_CODES`.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Other(_) => 1,
            Self::Configuration(_) => 2,
            Self::State(_) => 3,
            Self::Bind { .. } => 4,
        })
    }
}
