//! The admin socket: HTTP/1.1 with JSON bodies, for root and the relay's own user.
//!
//! | subject | file |
//! |---|---|
//! | the socket's file, who may speak, HTTP | `socket`, `server` |
//! | what is asked and answered | `api` |
//! | one answer each | `status`, … |

use std::sync::{Arc, OnceLock};

use lanrage_relay_core::{Binder, Now};

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

mod status;
mod upgrade;

/// What the admin socket answers from.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) health: Arc<Health>,
    /// Set once the relay has enrolled and its threads run.
    pub(crate) serving: OnceLock<Serving>,
}

/// What there is once the relay serves.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) relay: u16,
    pub(crate) pool: u16,
    pub(crate) orders: Orders,
    pub(crate) upgrades: Upgrades,
}

impl Admin {
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
