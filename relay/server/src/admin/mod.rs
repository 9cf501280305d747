//! The admin socket: HTTP/1.1 with JSON bodies, for root and the relay's own user.
//!
//! | subject | file |
//! |---|---|
//! | the socket's file, who may speak, HTTP | `socket`, `server` |
//! | what is asked and answered | `api` |
//! | the answers | `status`, `leases`, `shards`, `bans`, `caps`, `drain`, `switches` |

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use lanrage_relay_core::{Binder, Now};
use lanrage_relay_uring::GsoSwitch;

use crate::binder::Orders;
use crate::handover::Upgrades;
use crate::http::Health;

/// Requests and answers, as JSON says them.
pub mod api;

mod server;
pub(crate) use server::serve;
mod socket;
pub(crate) use socket::AdminSocket;
pub use socket::Listen;

mod bans;
pub(crate) use bans::KeptBans;
mod caps;
mod drain;
mod leases;
mod shards;
mod status;
mod switches;
mod upgrade;

/// What the admin socket answers from.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) health: Arc<Health>,
    /// Set once the relay has enrolled and its threads run.
    pub(crate) serving: OnceLock<Serving>,
    pub(crate) gso: GsoSwitch,
}

/// What there is once the relay serves.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) relay: u16,
    pub(crate) pool: u16,
    pub(crate) orders: Orders,
    pub(crate) upgrades: Upgrades,
    pub(crate) bans: KeptBans,
}

/// Slots that the binder looks at in one go: some 2 ms where all hold a lease.
const SLICE: usize = 2_048;

fn slices(slots: Range<u32>) -> impl Iterator<Item = Range<u32>> {
    let end = slots.end;
    slots.step_by(SLICE).map(move |from| from..from.saturating_add(SLICE as u32).min(end))
}

impl Admin {
    pub(crate) const fn new(health: Arc<Health>, gso: GsoSwitch) -> Self {
        Self { health, serving: OnceLock::new(), gso }
    }

    fn serving(&self) -> Result<&Serving, Refused> {
        self.serving.get().ok_or_else(|| Refused::conflict("the relay has not enrolled yet"))
    }

    /// Has the binder carry out `task`, which must be short: binding waits meanwhile.
    async fn ask<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Binder, Now) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let answer = self.serving()?.orders.ask(task).await;
        answer.ok_or_else(|| Refused::conflict("the relay is stopping"))
    }
}

/// Why a request is not met.
#[derive(Debug)]
pub(crate) struct Refused {
    status: hyper::StatusCode,
    error: String,
}

impl Refused {
    fn new(status: hyper::StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }

    /// Not in the state the relay is in.
    fn conflict(error: impl Into<String>) -> Self {
        Self::new(hyper::StatusCode::CONFLICT, error)
    }
}
