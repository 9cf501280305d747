use lanrage_relay_uring::BindError;
use lanrage_state::StateError;

use crate::config::ConfigError;

/// What ends the relay before it is told to stop.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration does not hold.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A local address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The metrics address cannot be bound.
    #[error(
        "TCP {address} for metrics cannot be bound ({source}): choose another --metrics-listen"
    )]
    BindMetrics {
        /// As configured.
        address: std::net::SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// There is no admin socket.
    #[error("admin socket {path}: {source}", path = path.display())]
    BindAdmin {
        /// As configured.
        path: std::path::PathBuf,
        /// Why.
        source: crate::admin::Listen,
    },
    /// A TCP address for streams cannot be bound.
    #[error(
        "TCP {address} for streams cannot be bound ({source}): choose another --stream-listen, or \
         none; a port below 1024 takes root or CAP_NET_BIND_SERVICE"
    )]
    BindStreams {
        /// As configured.
        address: std::net::SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Control does not take this relay, or it was never asked to.
    #[error("{0}")]
    NotEnrolled(String),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// For `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  stopped by SIGTERM or SIGINT, drained with --exit, or replaced by an upgrade
  1  any other failure
  2  wrong usage or configuration
  3  the state directory is corrupt, newer, locked, or not accessible
  4  an address or the admin socket cannot be bound (the message names it)
  5  not enrolled, or refused by control";

/// For `check-config --help`.
pub const CHECK_EXIT_CODES: &str = "\
Exit codes:
  0  `run` can start with this
  1  any other failure
  2  wrong usage or configuration
  3  the state directory is corrupt, newer, or not accessible
  5  not enrolled, and no control or no token to do so";

impl Failure {
    /// The process's exit code; see [`EXIT_CODES`].
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Other(_) => 1,
            Self::Config(_) => 2,
            Self::State(_) => 3,
            Self::Bind(_)
            | Self::BindMetrics { .. }
            | Self::BindAdmin { .. }
            | Self::BindStreams { .. } => 4,
            Self::NotEnrolled(_) => 5,
        }
    }
}
