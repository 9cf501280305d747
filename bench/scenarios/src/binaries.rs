use std::path::PathBuf;

use anyhow::{Context, bail};

/// The path of one of the workspace's programs, built beside this one.
///
/// # Errors
/// The program is not there: `make build` makes it.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("find this program")?;
    // A test binary lies in `deps` below the programs.
    let found = this.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|p| p.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!("{name} is not built: run `make build-all`"),
    }
}
