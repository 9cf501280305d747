use std::sync::Arc;

use lanrage_relay_core::Ban;
use tokio::sync::Mutex;

use super::api::{BanRow, Banned, Subject};
use super::{Admin, Refused, slices};
use crate::clock::unix_s;
use crate::state::StateDir;

/// Some megabytes of memory and of disk, written whole at each change.
const BANS_MAX: usize = 10_000;

/// The bans as they are on disk.
#[derive(Debug)]
pub(crate) struct KeptBans {
    state: Arc<StateDir>,
    rows: Mutex<Vec<BanRow>>,
}

impl KeptBans {
    pub(crate) fn new(state: Arc<StateDir>, rows: Vec<BanRow>) -> Self {
        Self { state, rows: Mutex::new(rows) }
    }

    /// Writes the rows, and holds them once they are on disk: a ban that a restart forgot would be
    /// worse than none.
    fn keep(&self, held: &mut Vec<BanRow>, rows: Vec<BanRow>) -> Result<(), Refused> {
        let unkept = |error| Refused::conflict(format!("bans cannot be kept on disk: {error}"));
        self.state.set_bans(&rows).map_err(unkept)?;
        *held = rows;
        Ok(())
    }
}

impl Subject {
    pub(crate) const fn ban(&self) -> Ban {
        match self {
            Self::Key(key) => Ban::Key(key.0),
            Self::Session(session) => Ban::Session(*session),
        }
    }
}

impl Admin {
    pub(super) async fn bans(&self) -> Result<Vec<BanRow>, Refused> {
        Ok(self.serving()?.bans.rows.lock().await.clone())
    }

    pub(super) async fn ban(&self, subject: Subject) -> Result<Banned, Refused> {
        let bans = &self.serving()?.bans;
        let mut held = bans.rows.lock().await;
        if held.iter().any(|row| row.subject == subject) {
            return Err(Refused::conflict(format!("{subject} is banned already")));
        }
        if held.len() == BANS_MAX {
            return Err(Refused::conflict(format!("{BANS_MAX} bans hold: lift some first")));
        }
        let mut rows = held.clone();
        rows.push(BanRow { subject: subject.clone(), since: unix_s() });
        bans.keep(&mut held, rows)?;
        self.hold(&held).await?;
        let mut ended = 0;
        let slots = self.ask(|binder, _| binder.slot_count()).await?;
        for range in slices(0..slots) {
            ended += self.ask(|binder, _| binder.end_banned(range)).await?;
        }
        tracing::info!(%subject, ended, "banned");
        Ok(Banned { ended })
    }

    pub(super) async fn unban(&self, subject: Subject) -> Result<(), Refused> {
        let bans = &self.serving()?.bans;
        let mut held = bans.rows.lock().await;
        let rows: Vec<_> = held.iter().filter(|row| row.subject != subject).cloned().collect();
        if rows.len() == held.len() {
            return Err(Refused::conflict(format!("{subject} is not banned")));
        }
        bans.keep(&mut held, rows)?;
        self.hold(&held).await?;
        tracing::info!(%subject, "no longer banned");
        Ok(())
    }

    async fn hold(&self, rows: &[BanRow]) -> Result<(), Refused> {
        let bans: Vec<_> = rows.iter().map(|row| row.subject.ban()).collect();
        self.ask(|binder, _| binder.set_bans(bans)).await
    }
}
