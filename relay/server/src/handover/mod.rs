//! One process of a relay hands over to the next, and no datagram and no lease is lost.
//!
//! ```text
//! old                                             new
//! starts the new one, a socket as its input
//! offers descriptors: sockets, memory, lock ────► reads its configuration, compares
//!                                            ◄─── ready
//! binder stops                               ───► takes table and binder over, changing nothing
//!                                            ◄─── adopted
//! shards stop receiving, send what they have ───► opens its back ends: receives
//!                                            ◄─── armed
//! lets go, ends with 0                       ───► binds: the relay is its own
//! ```
//!
//! Until it lets go the old process can go on as if nothing had happened, and does so when the new
//! one refuses, ends, or says nothing for a while: it kills the new one first, for two that receive
//! from the same sockets lose datagrams. Nothing in memory is changed by the new one until then but
//! what shards count of a lease. What arrives while nobody receives waits in the sockets.
//!
//! | subject | file |
//! |---|---|
//! | messages with descriptors | `channel` |
//! | what is said, what is carried | `message`, `carried` |
//! | threads that stop and go on | `gate` |
//! | the old side, the new side | `give`, `take` |
//! | starting the next process of a relay that runs | `upgrade` |

mod carried;
pub use carried::{FrozenBinder, Halted, ShardState, Waiting};
mod channel;
pub use channel::Channel;
mod gate;
pub(crate) use gate::Gate;
mod message;
pub(crate) use message::{ADMIN, METRICS};
mod give;
pub use give::{Estate, GiveError, Halt, Idle, Memory, give};
mod take;
pub(crate) use take::{Taken, take};
mod upgrade;
pub use upgrade::start;
pub(crate) use upgrade::{Running, Upgrades, offer_upgrades};
