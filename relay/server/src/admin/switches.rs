//! What can be set while the relay runs.

use super::api::{Gso, Log};
use super::{Admin, Refused};
use crate::config::GsoSetting;
use crate::logs;

impl Admin {
    pub(super) fn log(&self, Log { filter }: Log) -> Result<Log, Refused> {
        if let Some(filter) = filter {
            logs::set_filter(&filter).map_err(Refused::conflict)?;
            // Unless the filter leaves it out.
            tracing::info!(filter, "log filter changed");
        }
        Ok(Log { filter: logs::filter() })
    }

    pub(super) fn gso(&self, Gso { mode }: Gso) -> Result<Gso, Refused> {
        if let Some(mode) = mode {
            self.gso.set(mode.into());
            tracing::info!(?mode, "segmentation offload changed");
        }
        Ok(Gso { mode: Some(GsoSetting::from(self.gso.mode())) })
    }
}
