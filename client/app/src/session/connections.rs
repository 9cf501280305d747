use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lanrage_control_client::{Connection, ControlClient, Error};
use tokio::sync::oneshot;
use tokio::time::sleep;

/// Open connections to one control service, the one that answered last first.
///
/// An exchange is begun again on the next connection while nothing comes back: a lost packet costs
/// TCP at least its minimum retransmission time of 200 ms, and twice that the second time.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    client: ControlClient,
    pool: Arc<Mutex<Pool>>,
}

#[derive(Debug, Default)]
struct Pool {
    open: Vec<Kept>,
    next_id: u64,
    fastest: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Kept {
    id: u64,
    connection: Connection,
    last_used: Instant,
}

/// Exchanges begun for one question, so that a slow server is not made slower.
const ATTEMPTS: usize = 4;
/// Where nothing is known of the path yet.
const HEDGE_AFTER_MAX: Duration = Duration::from_millis(300);
/// Below this the server's own time decides, not the path's.
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(100);
/// A connection that is not used for so long is closed.
const IDLE: Duration = Duration::from_secs(15);
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

impl Connections {
    pub(super) fn new(client: ControlClient) -> Self {
        Self { client, pool: Arc::default() }
    }

    pub(super) const fn client(&self) -> &ControlClient {
        &self.client
    }

    /// Runs an exchange that must not be repeated.
    pub(super) async fn once<R, F: Future<Output = Result<R, Error>>>(
        &self,
        exchange: impl FnOnce(Connection) -> F,
    ) -> Result<R, Error> {
        let kept = match self.nth(0) {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let answer = exchange(kept.connection).await;
        self.settle(kept.id, is_final(&answer));
        answer
    }

    /// Runs an idempotent exchange. The first answer wins, a refusal too.
    pub(super) async fn hedged<R, F: Future<Output = Result<R, Error>>>(
        &self,
        exchange: impl Fn(Connection) -> F,
    ) -> Result<R, Error> {
        let attempt = async |number: usize| {
            let kept = match self.nth(number) {
                Some(kept) => kept,
                None => self.connect().await?,
            };
            let answer = exchange(kept.connection).await;
            self.settle(kept.id, is_final(&answer));
            answer
        };
        let hedge_after = self.hedge_after();
        let mut attempts = FuturesUnordered::new();
        attempts.push(attempt(0));
        let mut begun = 1;
        loop {
            tokio::select! {
                Some(answer) = attempts.next() => {
                    if is_final(&answer) || (attempts.is_empty() && begun == ATTEMPTS) {
                        return answer;
                    }
                    if !attempts.is_empty() {
                        continue;
                    }
                }
                () = sleep(hedge_after), if begun < ATTEMPTS => {}
            }
            attempts.push(attempt(begun));
            begun += 1;
        }
    }

    /// Three times the fastest exchange: late enough that a question is rarely asked twice.
    fn hedge_after(&self) -> Duration {
        let fastest = self.pool().fastest;
        let patience = fastest.map_or(HEDGE_AFTER_MAX, |fastest| fastest.saturating_mul(3));
        patience.clamp(HEDGE_AFTER_MIN, HEDGE_AFTER_MAX)
    }

    fn nth(&self, number: usize) -> Option<Kept> {
        let mut pool = self.pool();
        pool.open.retain(|kept| !kept.connection.is_closed());
        let kept = pool.open.get_mut(number)?;
        kept.last_used = Instant::now();
        Some(kept.clone())
    }

    /// Opens a connection, and keeps it for others if the caller does not wait for it.
    async fn connect(&self) -> Result<Kept, Error> {
        let (sender, receiver) = oneshot::channel();
        let this = self.clone();
        tokio::spawn(async move {
            let connected = this.client.connect(DEADLINE).await.map(|connection| {
                let mut pool = this.pool();
                pool.next_id += 1;
                let kept = Kept { id: pool.next_id, connection, last_used: Instant::now() };
                pool.open.push(kept.clone());
                kept
            });
            let id = connected.as_ref().ok().map(|kept| kept.id);
            // Whoever asked may have had an answer from elsewhere meanwhile.
            let _not_waiting = sender.send(connected);
            if let Some(id) = id {
                this.close_when_idle(id).await;
            }
        });
        let ending = |_| self.client.endpoint().broken("the daemon is ending");
        receiver.await.map_err(ending)?
    }

    async fn close_when_idle(&self, id: u64) {
        let idle = || {
            let pool = self.pool();
            let kept = pool.open.iter().find(|kept| kept.id == id)?;
            Some(kept.last_used.elapsed())
        };
        while let Some(idle) = idle().filter(|idle| *idle < IDLE) {
            sleep(IDLE - idle).await;
        }
        self.pool().open.retain(|kept| kept.id != id);
    }

    /// An exchange on a connection has ended: with an answer, or not.
    fn settle(&self, id: u64, answered: bool) {
        let mut pool = self.pool();
        let Some(at) = pool.open.iter().position(|kept| kept.id == id) else { return };
        if !answered {
            pool.open.remove(at);
            return;
        }
        let took = pool.open[at].last_used.elapsed();
        pool.open[..=at].rotate_right(1);
        pool.fastest = Some(pool.fastest.map_or(took, |fastest| fastest.min(took)));
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another attempt cannot end differently.
const fn is_final<R>(answer: &Result<R, Error>) -> bool {
    match answer {
        Ok(_) | Err(Error::Api(_) | Error::OtherRoot { .. } | Error::BadAnswer { .. }) => true,
        Err(
            Error::Unreachable { .. }
            | Error::Tls { .. }
            | Error::Broken { .. }
            | Error::TimedOut { .. },
        ) => false,
    }
}
