use std::fmt;
use std::io;
use std::net::SocketAddr;

use lanrage_proto::api::ApiError;

use crate::endpoint::Endpoint;

/// Why control gave no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No TCP connection: the name does not resolve, or every address failed.
    #[error("cannot reach control at {endpoint} ({tried}): check the network, or try again later")]
    Unreachable {
        /// `host:port`.
        endpoint: String,
        /// What was tried.
        tried: Tried,
    },
    /// Something answers there, but it does not have the pinned root key.
    #[error(
        "{endpoint} is not the server that was named (its root key is another one): ask for the invite or address again"
    )]
    OtherRoot {
        /// `host:port`.
        endpoint: String,
    },
    /// The TLS handshake failed for another reason.
    #[error("no TLS connection to control at {endpoint}: {reason}")]
    Tls {
        /// `host:port`.
        endpoint: String,
        /// By rustls or the kernel.
        reason: io::Error,
    },
    /// Control refused; its message says why and what to do.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The answer is not what the protocol says.
    #[error("what control at {endpoint} answers cannot be read ({reason}): update LANrage")]
    BadAnswer {
        /// `host:port`.
        endpoint: String,
        /// What does not fit.
        reason: String,
    },
    /// An established connection ended.
    #[error("the connection to control at {endpoint} broke ({reason}): try again")]
    Broken {
        /// `host:port`.
        endpoint: String,
        /// By hyper, tungstenite or the kernel.
        reason: String,
    },
    /// The caller's deadline passed, or a stream was silent for 30 s.
    #[error("control at {endpoint} did not answer in time: check the network, or try again later")]
    TimedOut {
        /// `host:port`.
        endpoint: String,
    },
}

/// Failures of an exchange with this service.
impl Endpoint {
    /// [`Error::BadAnswer`]
    pub fn bad_answer(&self, reason: impl fmt::Display) -> Error {
        Error::BadAnswer { endpoint: self.to_string(), reason: reason.to_string() }
    }

    /// [`Error::Broken`]
    pub fn broken(&self, reason: impl fmt::Display) -> Error {
        Error::Broken { endpoint: self.to_string(), reason: reason.to_string() }
    }

    /// [`Error::TimedOut`]
    pub fn timed_out(&self) -> Error {
        Error::TimedOut { endpoint: self.to_string() }
    }
}

/// The addresses that were tried and how each failed.
#[derive(Debug, Default)]
pub struct Tried {
    /// Set when the name did not resolve.
    pub name: Option<io::Error>,
    /// One entry per failed attempt.
    pub addresses: Vec<(SocketAddr, io::Error)>,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = &self.name {
            return write!(f, "the name does not resolve: {error}");
        }
        for (index, (address, error)) in self.addresses.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {error}")?;
        }
        Ok(())
    }
}
