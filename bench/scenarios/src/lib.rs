//! The real programs on real hosts: what LANrage must show, and the demo.
//!
//! A [`Deployment`] is a control service, relays and players in a [`lanrage_lab::Lab`], each the
//! real binary in its own namespace. The scenarios are this crate's integration tests, one claim a
//! file; the programs `lanrage-demo` and `lanrage-stand` are built on the same pieces.

mod binaries;
pub use binaries::{binary, run_to_end};

mod deployment;
pub use deployment::{Deployment, Plan, PlayerPlan};

mod control;
pub use control::Control;

mod relay;
pub use relay::{Backend, Relay, RelayPlan};

mod player;
pub use player::{Answer, Player, exit};

mod describe;
pub use describe::{Description, describe};

mod flow;
pub use flow::{Arrivals, BothWays, Flow};

mod transfer;
pub use transfer::{Transfer, send_marked, transfer};

mod wait;
pub use wait::eventually;

/// How many rounds a scenario runs: `short` in `make test`, `whole` in `make soak`.
pub fn rounds(short: usize, whole: usize) -> usize {
    if std::env::var_os("LANRAGE_SOAK").is_some() { whole } else { short }
}
