//! Clients and relays in a virtual network.
#![expect(clippy::unwrap_used, reason = "what fails in a test fails the test")]
#![expect(clippy::wildcard_enum_match_arm, reason = "tests look for one variant among many")]

mod drain;
mod failover;
mod false_epochs;
mod hostile;
mod join;
mod kick;
mod lease;
mod mesh;
mod net;
mod nic;
mod presence;
mod streams;
