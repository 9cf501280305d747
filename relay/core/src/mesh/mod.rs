//! The other relays, as data between relays (§3.6) needs them.
//!
//! The slow side keeps a `Roster` and makes `Peers` of it whenever the relay map or the epoch
//! changes; shards look at nothing else. What outlives a change are the `Windows`, which all
//! shards share.

mod peers;
pub use peers::{Peer, Peers};
mod roster;
pub use roster::{Other, Roster};
mod windows;
pub use windows::Windows;
