//! Sockets, rings and batches: how a relay shard talks to the kernel.
//!
//! A shard owns one [`Backend`], opened on its own thread over one [`Sockets`], and calls
//! [`Backend::turn`] in a loop. A turn receives a batch of UDP datagrams and GRO trains, shows each
//! to the shard's [`Handler`], and sends what the handler queued on its [`Tx`]. There are two back
//! ends with the same behaviour and the same [`Counters`]: io_uring, and recvmmsg with sendmmsg.
//! [`probe::resolve`] picks one when the relay starts and says why.
//!
//! The crate knows nothing of frames. On the data path there is no lock, no allocation and no log;
//! the clock is read once a turn while a destination is barred from segmentation offload, and a few
//! times in one turn of [`SAMPLE_EVERY`].
#![expect(
    unsafe_code,
    reason = "the one place where the relay hands memory to the kernel: rings, message headers, socket options"
)]

mod counters;
pub use counters::{Counter, Counters, Histogram, Latencies, SendFailure};

mod address;
mod control;
mod mapping;
mod memory;
pub use memory::SharedMemory;

mod sockets;
pub use sockets::{BindError, MAX_SOCKETS, Sender, SocketId, SocketOptions, Sockets, bind};
mod option;
mod standing;
mod steering;
pub use steering::{DataFrame, Spread, Steering};

pub mod gso;
pub use gso::{GsoMode, GsoSwitch, GsoVerdict};

mod handler;
pub use handler::{Handler, Received};
mod tx;
pub use tx::Tx;
mod arrival;
pub use arrival::SAMPLE_EVERY;
mod copies;
mod join;
mod message;
mod outgoing;
mod queue;

mod batch;
pub use batch::Batch;

mod waker;
pub use waker::Waker;

mod mmsg;
pub use mmsg::Mmsg;
mod uring;
pub use uring::Uring;

mod backend;
pub use backend::{Backend, BackendKind, Options, Tally};
pub mod probe;
