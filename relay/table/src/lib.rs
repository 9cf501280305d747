//! The lock-free lease table of a relay.
//!
//! One [`Writer`] (the binder) owns all edits; any number of [`Reader`]s (the shards) look leases up without
//! waiting. All memory is there from the start; nothing grows afterwards.
//!
//! Four slabs of 64-byte lines, each a plain array that is addressed by index, in words that the caller provides
//! ([`create`]): in memory that processes share, another process goes on with the table ([`adopt()`]).
//!
//! ```text
//! lease line    one a slot   sequence-locked, only the writer writes: who, which address, which session
//! owner line    one a slot   only the shard that receives the lease's frames writes: last seen, buckets, counters
//! chain line    1..=21 a session: twelve (member, handle) and the number of the next line
//! session line  one a chain head: the session's shared buckets
//! ```
//!
//! A frame from A to B costs its relay A's lease, owner and session lines, then one chain line (more in parties over
//! twelve) and B's lease line. What a chain names is only a hint: [`Reader::peer`] and [`Reader::members`] return a
//! target whose generation, session and member were checked in the same sequence-locked read as its address.
//!
//! # What a miss means
//!
//! [`Miss::Absent`]: at some moment of the call there was no such lease. [`Miss::Torn`]: the writer was inside an edit
//! of that very line on each of [`READ_TRIES`] looks, or the member's lease was replaced again and again during the
//! call. Only an insertion and a rebind open a line, for nine stores at most, so the former needs the writer to be
//! descheduled in the middle of one. It concerns one slot, says nothing about whether the lease exists, and must not be
//! answered with a hint. The caller drops the frame and counts it.

#![forbid(unsafe_code)]

mod sync;

mod ids;
pub use ids::{ChainHead, Handle, LocalId, Member, SessionId, Tag};
mod endpoint;
pub use endpoint::Endpoint;
mod lease;
mod line;
pub use lease::{Lease, READ_TRIES, State};
mod owner;
pub use owner::{Budget, OwnerLine, Received, SessionLine};
mod chain;
mod memory;
pub use memory::{AttachError, LAYOUT_VERSION};
mod directory;
mod slabs;
pub use slabs::{Capacity, CapacityError, Footprint, adopt, create, new};
mod reader;
pub use reader::{Cursor, Members, Miss, Reader, Source, Target, Torn};
mod adopt;
mod free;
mod index;
mod writer;
pub use writer::{Counts, Full, Inserted, MemberLeases, NewLease, Scanned, Stale, Writer};
