//! The service as its clients and relays see it: real TLS, real streams, real files.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking on what it does not expect"
)]

mod devices;
mod invites;
mod kicks;
mod operators;
mod outages;
mod parties;
mod relays;
mod streams;
mod support;
