//! The two back ends behind one type.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::counters::Counters;
use crate::gso::GsoSwitch;
use crate::handler::Handler;
use crate::mmsg::Mmsg;
use crate::probe::{OpenError, Refusal};
use crate::sockets::Sockets;
use crate::tx::PIECES_MAX;
use crate::uring::Uring;
use crate::waker::Waker;

/// How a back end is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most receive buffers of a shard; default 512, a power of two of 8 to 8,192, else the next one.
    /// There are few at first, and twice as many each time a turn found too few. Each takes 64 KiB of
    /// address space, and of memory as much as was ever received into it. Too few cost system calls,
    /// not datagrams: what finds no buffer waits in the socket. recvmmsg shares them out between the
    /// sockets, at most 64 each.
    pub buffers: usize,
    /// Datagrams, trains and pieces of trains queued before they are submitted within a batch; default
    /// 1,000, of 256 to 8,192.
    pub sends: usize,
    /// Segmentation offload.
    pub gso: GsoSwitch,
}

impl Default for Options {
    fn default() -> Self {
        Self { buffers: 512, sends: 1000, gso: GsoSwitch::default() }
    }
}

impl Options {
    pub(crate) fn buffers(&self) -> usize {
        self.buffers.clamp(8, 8192).next_power_of_two()
    }

    /// How many buffers there are at first: so few that what a turn receives stays in a core's cache.
    pub(crate) fn buffers_at_first(&self) -> usize {
        self.buffers().min(128)
    }

    pub(crate) fn sends(&self) -> usize {
        self.sends.clamp(PIECES_MAX, 8192)
    }
}

/// A way to drive sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// io_uring.
    Uring,
    /// recvmmsg and sendmmsg.
    Mmsg,
}

impl BackendKind {
    /// The name for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Mmsg => "recvmmsg",
        }
    }
}

/// What a back end has counted, as words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// By [`Counters::to_words`].
    pub counters: Vec<u64>,
    /// By socket: how many datagrams the kernel had dropped when it last said so (SO_RXQ_OVFL).
    pub overflows: Vec<u32>,
}

/// What drives a shard's sockets. It stays on the thread that opened it.
#[derive(Debug)]
pub enum Backend {
    /// io_uring.
    Uring(Box<Uring>),
    /// recvmmsg and sendmmsg.
    Mmsg(Box<Mmsg>),
}

impl Backend {
    /// Takes over a shard's sockets. To be called on the shard's thread.
    ///
    /// # Errors
    ///
    /// What the kernel refused. The sockets are closed.
    pub fn open(kind: BackendKind, sockets: Sockets, options: &Options) -> Result<Self, OpenError> {
        Ok(match kind {
            BackendKind::Uring => Self::Uring(Box::new(Uring::open(sockets, options)?)),
            BackendKind::Mmsg => Self::Mmsg(Box::new(
                Mmsg::open(sockets, options)
                    .map_err(|error| Refusal::new("opening recvmmsg", error))?,
            )),
        })
    }

    /// Takes one turn: waits up to `timeout` for arrivals, shows the handler all there are, then ends
    /// the batch. What the handler queued is sent in this turn (recvmmsg) or with the system call
    /// that begins the next (io_uring).
    ///
    /// # Errors
    ///
    /// Only what makes further turns useless, such as a closed descriptor. No datagram, and no socket
    /// error, is one: those are counted.
    pub fn turn(&mut self, handler: &mut impl Handler, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Uring(uring) => uring.turn(handler, timeout),
            Self::Mmsg(mmsg) => mmsg.turn(handler, timeout),
        }
    }

    /// Receives no more, shows the handler what was received, and submits all that it queues. What
    /// arrives meanwhile waits in the sockets, for the next turn or for another process.
    ///
    /// # Errors
    ///
    /// See [`turn`](Self::turn).
    pub fn drain(&mut self, handler: &mut impl Handler) -> io::Result<()> {
        match self {
            Self::Uring(uring) => uring.drain(handler),
            Self::Mmsg(mmsg) => {
                mmsg.drain(handler);
                Ok(())
            }
        }
    }

    /// What a process that takes the sockets over goes on from: after [`drain`](Self::drain), all
    /// that there will be.
    pub fn tally(&self) -> Tally {
        let overflows = match self {
            Self::Uring(uring) => uring.intake().overflows(),
            Self::Mmsg(mmsg) => mmsg.intake().overflows(),
        };
        Tally { counters: self.counters().to_words(), overflows }
    }

    /// Goes on from the counts of the process that had the sockets. To be called before the first
    /// turn.
    pub fn resume(&mut self, tally: &Tally) {
        self.counters().resume(&tally.counters);
        match self {
            Self::Uring(uring) => uring.intake_mut().resume(&tally.overflows),
            Self::Mmsg(mmsg) => mmsg.intake_mut().resume(&tally.overflows),
        }
    }

    /// Which one it is.
    pub fn kind(&self) -> BackendKind {
        match self {
            Self::Uring(_) => BackendKind::Uring,
            Self::Mmsg(_) => BackendKind::Mmsg,
        }
    }

    /// Ends a turn's wait from another thread.
    pub fn waker(&self) -> Waker {
        match self {
            Self::Uring(uring) => uring.waker(),
            Self::Mmsg(mmsg) => mmsg.waker(),
        }
    }

    /// The shard's counters.
    pub fn counters(&self) -> Arc<Counters> {
        match self {
            Self::Uring(uring) => uring.counters(),
            Self::Mmsg(mmsg) => mmsg.counters(),
        }
    }
}
