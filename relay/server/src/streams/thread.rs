use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

use anyhow::Context as _;
use lanrage_relay_core::Shard;
use lanrage_relay_uring::{Batch, Sender, SocketId};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

use super::exchange::Exchange;
use super::gate::Gate;
use super::outlet::Outlet;
use super::serve::{self, READ_LEN, Shared};
use super::{Listeners, StreamsView};
use crate::clock::Clock;
use crate::handover::{self, ShardState};
use crate::mesh::Subscription;
use crate::published::{Published, ShardView};
use crate::queues::Queues;
use crate::role::Role;

/// Datagrams by UDP that one read of a stream may bring, and copies of its broadcasts.
const SENDS: usize = 256;
/// How late the thread notices that the relay stops.
const TICK: Duration = Duration::from_millis(250);

/// What the streams' thread works with.
#[derive(Debug)]
pub(crate) struct StreamsThread {
    pub(crate) listeners: Listeners,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) core: Shard,
    pub(crate) mesh: Subscription,
    pub(crate) sender: Sender,
    /// By local id.
    pub(crate) sockets: Box<[SocketId]>,
    pub(crate) queues: Arc<Queues>,
    pub(crate) binder: Thread,
    pub(crate) outlet: Outlet,
    pub(crate) clock: Clock,
    pub(crate) published: Arc<Published>,
    /// What the process before has counted.
    pub(crate) before: Option<ShardState>,
    pub(crate) number: usize,
    pub(crate) gate: Arc<handover::Gate<ShardState>>,
}

impl StreamsThread {
    /// Serves streams until told to stop.
    ///
    /// # Errors
    /// The kernel has no memory or no descriptor left.
    pub(crate) fn run(self, stop: &AtomicBool) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("starting the runtime")?;
        LocalSet::new().block_on(&runtime, self.serve(stop))
    }

    async fn serve(mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        let (mut key, mut number) = ([0; 16], [0; 8]);
        for random in [&mut key[..], &mut number] {
            getrandom::fill(random).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        }
        let mut batch = Batch::open(self.sender, SENDS).context("allocating the send queue")?;
        let before = self.before.unwrap_or_default();
        self.core.resume(before.counters);
        batch.resume(&before.kernel);
        let view =
            Arc::new(StreamsView::new(Arc::new(ShardView::new(Role::Streams, batch.counters()))));
        view.shard.resume(&before);
        self.published.set_streams(view.clone());
        let exchange = Exchange::new(
            (self.core, self.mesh),
            (batch, self.sockets),
            (self.queues, self.binder),
            self.clock,
            view,
        );
        let shared = Rc::new(Shared {
            exchange: RefCell::new(exchange),
            gate: Gate::new(key),
            tls: self.tls,
            outlet: self.outlet,
            clock: self.clock,
            buffer: RefCell::new(Box::new([0; READ_LEN])),
            next_number: Cell::new(u64::from_be_bytes(number)),
        });
        let mut tasks = JoinSet::new();
        for listener in self.listeners.0 {
            listener.set_nonblocking(true).context("listening")?;
            let listener = TcpListener::from_std(listener).context("listening")?;
            tasks.spawn_local(serve::accept(shared.clone(), listener));
        }
        tasks.spawn_local(serve::exchange(shared.clone()));
        while !stop.load(Ordering::Relaxed) {
            if self.gate.is_closed() {
                // Nothing else runs on this thread: no stream is read or written meanwhile.
                let left = shared.exchange.borrow_mut().leave();
                self.gate.wait(self.number, left, stop);
                continue;
            }
            tokio::select! {
                // Keeps what is published fresh.
                () = sleep(TICK) => shared.outlet.wake(),
                () = shared.outlet.called() => {}
                // The runtime keeps a panic to the task, and the rest would go on without it.
                Some(ended) = tasks.join_next() => {
                    ended.context("a task of the streams has ended: a bug")?;
                }
            }
        }
        Ok(())
    }
}
