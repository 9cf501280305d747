//! Reaches the control service, for clients and relays alike: dials it over lossy links, trusts
//! nothing but the pinned root key, and gives JSON requests and WebSocket streams, each with the
//! channel binding that devices and relays sign.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

/// Which control service.
mod endpoint;
pub use endpoint::Endpoint;

/// What can go wrong, by who has to act.
mod error;
pub use error::{Error, Tried};

/// Gets one TCP connection out of several attempts.
mod dial;

/// The TLS configuration: a pinned key is the only trust.
mod pin;
pub use pin::key_config;

/// TLS to a relay, whose key the relay map names.
mod keyed;
pub use keyed::{TlsStream, connect_to_key};

/// Connections and requests.
mod connection;
pub use connection::{Connection, ControlClient};
pub use hyper::Method;

/// Streams.
mod websocket;
pub use websocket::WebSocket;
