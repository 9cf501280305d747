//! Where logs go, and a filter that may change while the program runs.

use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// The program's one log: tracing's subscriber is one for the process, too.
static LOG: OnceLock<LogControl> = OnceLock::new();

struct LogControl {
    filter: Mutex<String>,
    reload: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

/// Logs to standard error as the configuration says.
///
/// # Errors
/// The process logs already.
pub fn start(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log).context("reading the log filter")?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let reload: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync> = match config.log_format
    {
        LogFormat::Json => {
            let logs = logs.json().with_filter_reloading();
            let handle = logs.reload_handle();
            logs.try_init().map_err(anyhow::Error::from_boxed)?;
            Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
        }
        LogFormat::Text => {
            let logs = logs.with_ansi(io::stderr().is_terminal()).with_filter_reloading();
            let handle = logs.reload_handle();
            logs.try_init().map_err(anyhow::Error::from_boxed)?;
            Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
        }
    };
    let control = LogControl { filter: Mutex::new(config.log.clone()), reload };
    LOG.set(control).map_err(|_| anyhow::anyhow!("this process logs already"))
}

/// The filter in force; none where [`start`] was not called.
pub(crate) fn filter() -> Option<String> {
    Some(LOG.get()?.filter.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Changes what is logged from now on.
///
/// # Errors
/// Says what is wrong with the filter.
pub(crate) fn set_filter(text: &str) -> Result<(), String> {
    let control = LOG.get().ok_or("this process does not log")?;
    let filter = EnvFilter::try_new(text).map_err(|error| {
        format!("{text:?}: {error}: give LEVEL or TARGET=LEVEL, comma-separated")
    })?;
    let mut held = control.filter.lock().unwrap_or_else(PoisonError::into_inner);
    (control.reload)(filter)?;
    text.clone_into(&mut held);
    Ok(())
}
