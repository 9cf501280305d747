//! Where the workspace's programs are.

use std::path::{Path, PathBuf};

use anyhow::bail;

/// A program built beside `this` one; a test lies in `deps` below the programs.
///
/// # Errors
/// It is not there.
pub fn beside(this: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let found = this.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|p| p.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!("{name} is not built beside {}: run `make bench-build`", this.display()),
    }
}
