//! A program's state directory: 0700, its files 0600, one process at a time.
//!
//! Each file is one record: versioned, checksummed and replaced atomically, so that after a crash
//! at any point it is the old one or the new one, whole. Nothing that cannot be read is ever
//! overwritten.
//!
//! ```text
//! lanrage-state <format> <SHA-256 of the body in hexadecimal>\n<body: JSON>
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

mod lock;
pub use lock::Lock;

mod record;
pub use record::{FORMAT, read, remove, write};

/// Why a state directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error("{dir} is in use by process {pid}: stop it, or name another state directory")]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// As the other process wrote it; `unknown` if it could not be read.
        pid: String,
    },
    /// Written by a newer program.
    #[error("{path} has format {found}, this program knows format {known}: update LANrage")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest known one.
        known: u32,
    },
    /// Not what was written.
    #[error("{path} is corrupt ({why}): restore it from a backup, or move it away to start afresh")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// The kernel refused.
    #[error("cannot {action} {path}: {source}{}", advice(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl StateError {
    /// For `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// What to do about the refusals that an operator meets.
fn advice(error: &io::Error) -> &'static str {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let kind = error.kind();
    if kind == PermissionDenied {
        ": run this as root (sudo), or name a state directory of your own"
    } else if matches!(kind, StorageFull | QuotaExceeded) {
        ": free some space there"
    } else if kind == ReadOnlyFilesystem {
        ": make it writable, or name another state directory"
    } else {
        ""
    }
}

/// Makes a directory for its owner alone; one that exists gets the same rights.
///
/// # Errors
/// The kernel refuses.
pub fn create_private_dir(dir: &Path) -> Result<(), StateError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(StateError::io("create", dir))?;
    let rights = fs::metadata(dir).map_err(StateError::io("look at", dir))?.permissions();
    if rights.mode() & 0o777 == 0o700 {
        return Ok(());
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
        .map_err(StateError::io("set the permissions of", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cannot create /var/lib/…: Permission denied` was all that a first start without root said.
    #[test]
    fn regression_a_refusal_says_what_to_do() {
        let path = Path::new("/var/lib/lanrage");
        for (errno, says) in [
            (rustix::io::Errno::ACCESS, "run this as root (sudo)"),
            (rustix::io::Errno::PERM, "run this as root (sudo)"),
            (rustix::io::Errno::NOSPC, "free some space"),
            (rustix::io::Errno::DQUOT, "free some space"),
            (rustix::io::Errno::ROFS, "writable"),
        ] {
            let message = StateError::io("create", path)(errno.into()).to_string();
            assert!(message.starts_with("cannot create /var/lib/lanrage: "), "{message}");
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn a_directory_that_others_could_read_becomes_private() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        create_private_dir(&inner).unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
        create_private_dir(&inner).unwrap();
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o7777, 0o700);
    }
}
