use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;

/// Asks every 10 ms until `ready` gives a value.
///
/// # Errors
/// The deadline passed; the message holds `what` and the last error.
pub fn eventually<T>(
    what: &str,
    patience: Duration,
    mut ready: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        let answer = ready();
        if let Ok(Some(value)) = answer {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            match answer {
                Err(error) => return Err(error.context(format!("waited {patience:?} for {what}"))),
                Ok(_) => bail!("waited {patience:?} for {what}"),
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}
