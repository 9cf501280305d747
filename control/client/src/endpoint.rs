use std::fmt;

use lanrage_proto::RootHash;
use lanrage_proto::party::{Invite, ServerAddress};

/// A control service: where it is, and which root key it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address, as in a URL (IPv6 in brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// SHA-256 of its root public key.
    pub root: RootHash,
}

impl Endpoint {
    /// The host without the brackets of an IPv6 address.
    pub(crate) fn dialled_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl From<&Invite> for Endpoint {
    fn from(invite: &Invite) -> Self {
        Self { host: invite.host.clone(), port: invite.port, root: invite.root }
    }
}

impl From<&ServerAddress> for Endpoint {
    fn from(address: &ServerAddress) -> Self {
        Self { host: address.host.clone(), port: address.port, root: address.root }
    }
}
