//! The formats against vectors that share no code with this crate (`golden/generate.py`), and
//! against properties that hold for every value.
#![cfg(test)]

/// Reads the annotated vectors of `tests/golden`.
mod golden;
/// The values that the vectors hold.
mod samples;

mod api;
mod control;
mod data;
mod handshake;
mod inner;
mod mesh;
mod party;
mod signed;
mod stream;
mod stun;

/// Strategies for arbitrary values of every type.
mod arbitrary;
mod round_trip;
