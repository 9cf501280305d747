//! Networks of real hosts on one machine, built from Linux network namespaces.
//!
//! ```text
//!   relay1 ──link── ┌──────────┐ ──link── natA ── lan (bridge) ──link── playerA
//!   198.18.1.2      │ backbone │ 198.18.3.2  192.168.3.1                192.168.3.2
//!   2001:db8:1::2   │          │                        └─────link───── playerB
//!   relay2 ──link── └──────────┘ ──link── natB ── lan (bridge) ──link── playerC
//!   198.18.2.2                   198.18.6.2
//! ```
//!
//! The backbone is the internet: it routes between links, each of which has a /24 of 198.18.0.0/15
//! (RFC 2544) and a /64 of 2001:db8::/32 (RFC 3849). A [`Host`] is a namespace with one interface,
//! `eth0`, and finds the hosts on the backbone by their names. A [`Nat`] is a gateway that behaves as RFC 4787 names it. A [`Link`] is a veth pair, or
//! a user-space wire with delay, jitter, loss and rate that can be set while traffic flows.
//!
//! ```no_run
//! use lanrage_lab::{Impairment, Lab, LinkSpec, NatKind};
//! # use std::time::Duration;
//! # fn main() -> Result<(), lanrage_lab::Error> {
//! let lab = Lab::new()?;
//! let relay = lab.host("relay1", LinkSpec::direct())?;
//! let nat = lab.nat("natA", NatKind::PortRestrictedCone, LinkSpec::direct())?;
//! let dsl = Impairment { delay: Duration::from_millis(20), ..Impairment::NONE };
//! let player = nat.host("playerA", LinkSpec::shaped(dsl))?;
//! player.command("ping").args(["-c1", &relay.v4().to_string()]).status().expect("ping runs");
//! # Ok(())
//! # }
//! ```
//!
//! A lab needs root. It is torn down however its process ends: a guardian process watches a pipe
//! from the owner, and what a killed guardian leaves behind is swept by the next [`Lab::new`].
//!
//! Environment: `TMPDIR` holds the run directories (default `/tmp`); `LAB_KEEP=dir` keeps each run
//! directory, with its logs and captures, as `dir/<lab id>`.

mod error;
pub use error::Error;

mod families;
pub use families::Families;

mod lab;
pub use lab::Lab;

mod host;
pub use host::Host;

mod nat;
pub use nat::{Filtering, Lan, Mapping, Nat, NatKind, NatSpec, Rebind};

mod link;
pub use link::{Link, LinkSpec, Segmentation};

mod wire;
pub use wire::{Counters, Direction, Impairment, Order};

mod pump;

mod fault;
pub use fault::{Protocol, Traffic};

mod process;
pub use process::Process;

mod capture;
pub use capture::{Capture, packets_containing};

mod guardian;
pub use guardian::{LabId, Standing, down, list};

mod netns;
