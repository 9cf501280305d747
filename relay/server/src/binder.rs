//! The binder's thread: everything that is not data, and all writes to the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender as CommandSender, TryRecvError};
use lanrage_proto::KeyId;
use lanrage_proto::api::Revocation;
use lanrage_proto::signed::RelayCertificate;
use lanrage_relay_core::{Binder, Now};
use lanrage_relay_uring::{Sender, SocketId};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::egress::HostEgress;
use crate::handover::{FrozenBinder, Gate};
use crate::published::{BinderView, Published};
use crate::queues::{Item, Queues};
use crate::streams::Outlet;

/// What the slow side tells the binder.
#[derive(Debug)]
pub(crate) enum Order {
    Certificate(RelayCertificate),
    SigningKeys(Vec<(KeyId, [u8; 32])>),
    ControlFound,
    ControlLost,
    Revoke(Revocation),
    /// What the disk has; the binder may know more.
    Recall(Vec<Revocation>),
    ReplaceRevocations(Vec<Revocation>),
    Task(Task),
}

/// What an operator asks of the binder, with the way back of the answer inside.
pub(crate) struct Task(Box<Work>);

type Work = dyn FnOnce(&mut Binder, Now) + Send;

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Task")
    }
}

/// The slow side's way to the binder.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    sender: CommandSender<(Order, oneshot::Sender<()>)>,
    binder: thread::Thread,
}

impl Orders {
    pub(crate) const fn new(
        sender: CommandSender<(Order, oneshot::Sender<()>)>,
        binder: thread::Thread,
    ) -> Self {
        Self { sender, binder }
    }

    pub(crate) fn binder(&self) -> thread::Thread {
        self.binder.clone()
    }

    /// Has the binder carry out `task`; `None` when the relay is stopping.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Binder, Now) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let task = Task(Box::new(move |binder, now| {
            // A caller that has hung up does not matter.
            let _ = answer.send(task(binder, now));
        }));
        self.give(Order::Task(task)).await;
        answered.await.ok()
    }

    /// Gives an order and waits until it is carried out, or the binder is gone.
    pub(crate) async fn give(&self, order: Order) {
        let (done, is_done) = oneshot::channel();
        if self.sender.send((order, done)).is_ok() {
            self.binder.unpark();
            // An error means that the relay is stopping.
            let _ = is_done.await;
        }
    }
}

/// What the binder's thread works with.
#[derive(Debug)]
pub(crate) struct BinderThread {
    pub(crate) core: Binder,
    pub(crate) orders: Receiver<(Order, oneshot::Sender<()>)>,
    pub(crate) queues: Arc<Queues>,
    pub(crate) sender: Sender,
    /// By local id.
    pub(crate) sockets: Box<[SocketId]>,
    /// For what goes to no address of the relay, but to a stream.
    pub(crate) outlet: Outlet,
    pub(crate) clock: Clock,
    pub(crate) published: Arc<Published>,
    pub(crate) egress: HostEgress,
    pub(crate) sent: u64,
    pub(crate) send_failed: u64,
    pub(crate) gate: Arc<Gate<FrozenBinder>>,
}

impl BinderThread {
    /// Binds until told to stop. In order of urgency: activations, orders, time, datagrams.
    pub(crate) fn run(mut self, stop: &AtomicBool) {
        let queues = Arc::clone(&self.queues);
        self.gate.pass(stop);
        self.core.recall_activations(self.clock.now());
        while !stop.load(Ordering::Relaxed) {
            if self.gate.is_closed() {
                self.publish();
                self.gate.clone().wait(0, self.freeze(), stop);
                self.core.recall_activations(self.clock.now());
                continue;
            }
            let now = self.clock.now();
            while let Some(handle) = queues.activations.pop() {
                self.core.handle_activation(now, handle);
            }
            self.obey();
            if self.core.poll_timeout() <= now.ms {
                self.core.handle_timeout(now);
                self.send();
                let sent = self.egress.sent(&self.published.shards());
                self.core.handle_sent(now, sent);
                self.publish();
            }
            let mut is_idle = true;
            for item in queues.round() {
                self.handle(&item);
                is_idle = false;
            }
            if is_idle {
                let wait_ms = self.core.poll_timeout().saturating_sub(self.clock.ms());
                thread::park_timeout(Duration::from_millis(wait_ms));
            }
        }
        self.publish();
    }

    fn freeze(&self) -> FrozenBinder {
        let (sent, send_failed) = (self.sent, self.send_failed);
        FrozenBinder { core: self.core.freeze(), sent, send_failed, ..FrozenBinder::default() }
    }

    fn handle(&mut self, item: &Item) {
        let begin = Instant::now();
        let now = self.clock.now();
        self.core.handle_datagram(now, item.datagram(), item.source, item.local);
        self.send();
        self.core.spent(now, begin.elapsed().as_nanos() as u64);
    }

    fn send(&mut self) {
        while let Some(transmit) = self.core.poll_transmit() {
            let is_sent = match self.sockets.get(usize::from(transmit.local.0)) {
                Some(socket) => self.sender.send_to(*socket, transmit.to, &transmit.bytes).is_ok(),
                None => self.outlet.push_to(transmit.to, &transmit.bytes),
            };
            match is_sent {
                true => self.sent += 1,
                false => self.send_failed += 1,
            }
        }
        self.outlet.flush();
    }

    fn obey(&mut self) {
        loop {
            let (order, done) = match self.orders.try_recv() {
                Ok(order) => order,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            };
            match order {
                Order::Certificate(certificate) => self.core.set_certificate(certificate),
                Order::SigningKeys(keys) => self.core.set_signing_keys(keys),
                Order::ControlFound => self.core.control_found(self.clock.now()),
                Order::ControlLost => self.core.control_lost(),
                Order::Revoke(revocation) => self.core.revoke(&revocation),
                Order::Task(Task(task)) => task(&mut self.core, self.clock.now()),
                Order::Recall(all) => {
                    all.iter().for_each(|revocation| self.core.revoke(revocation));
                }
                Order::ReplaceRevocations(all) => self.core.replace_revocations(&all),
            }
            // Nobody waits when the relay is stopping.
            let _ = done.send(());
        }
    }

    pub(crate) fn publish(&self) {
        self.published.set_binder(BinderView {
            counters: *self.core.counters(),
            counts: self.core.counts(),
            skew: self.core.skew(),
            draining: self.core.draining(),
            bans: self.core.bans(),
            caps: self.core.caps().count(),
            revocations: self.core.revocations(),
            sent: self.sent,
            send_failed: self.send_failed,
            alive_ms: self.clock.ms(),
        });
    }
}
