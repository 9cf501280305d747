//! What survives a restart: enough to play again while control is down.
//!
//! ```text
//! <dir>/lock                    flock of the daemon that owns the directory; holds its process id
//! <dir>/device                  the device key, the active party
//! <dir>/parties/<session>       one membership: keys, secrets, server, party, ticket, relay map
//! ```
//!
//! The directory is 0700 and its files 0600. Each file is one [`file`] record: versioned,
//! checksummed, replaced atomically. Nothing that cannot be read is ever overwritten.

mod file;
mod lock;
mod record;
mod writer;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

pub use record::{Device, PartyRecord, SecretBytes, Server};
pub use writer::StateWriter;

use lanrage_proto::SessionId;
use lock::Lock;

/// Why the state directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another daemon has it.
    #[error(
        "another lanrage daemon (process {pid}) uses {dir}: stop it, or name another --state-dir"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// As the other daemon wrote it; `unknown` if it could not be read.
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
    #[error("cannot {action} {path}: {source}")]
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
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// The state directory, owned until dropped.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    _lock: Lock,
}

impl StateDir {
    /// Takes the directory, and makes it when there is none.
    ///
    /// # Errors
    /// [`StateError::InUse`], or the kernel refuses.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir.join(PARTIES))
            .map_err(StateError::io("create", dir))?;
        // An existing directory may have been made with other rights.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .map_err(StateError::io("set the permissions of", dir))?;
        Ok(Self { dir: dir.to_owned(), _lock: Lock::take(dir)? })
    }

    /// The device; made on first use.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn device(&self) -> Result<Device, StateError> {
        if let Some(device) = file::read(&self.dir.join(DEVICE))? {
            return Ok(device);
        }
        let device = Device::generate();
        self.save_device(&device)?;
        Ok(device)
    }

    /// Replaces the device's record.
    ///
    /// # Errors
    /// The kernel refuses; the old record is whole.
    pub fn save_device(&self, device: &Device) -> Result<(), StateError> {
        file::write(&self.dir.join(DEVICE), device)
    }

    /// All memberships, by session.
    ///
    /// # Errors
    /// See [`StateError`]; a single bad record is an error, never a membership lost in silence.
    pub fn parties(&self) -> Result<Vec<PartyRecord>, StateError> {
        let dir = self.dir.join(PARTIES);
        let mut sessions = Vec::new();
        for entry in fs::read_dir(&dir).map_err(StateError::io("list", &dir))? {
            let name = entry.map_err(StateError::io("list", &dir))?.file_name();
            // A temporary file that a crash left behind has no session's name.
            sessions.extend(name.to_str().and_then(|name| name.parse::<SessionId>().ok()));
        }
        sessions.sort_unstable();
        sessions.into_iter().filter_map(|session| self.party(session).transpose()).collect()
    }

    fn party(&self, session: SessionId) -> Result<Option<PartyRecord>, StateError> {
        file::read(&self.party_path(session))
    }

    /// Replaces one membership's record.
    ///
    /// # Errors
    /// The kernel refuses; the old record is whole.
    pub fn save_party(&self, party: &PartyRecord) -> Result<(), StateError> {
        file::write(&self.party_path(party.session()), party)
    }

    /// Forgets a membership.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_party(&self, session: SessionId) -> Result<(), StateError> {
        let path = self.party_path(session);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn party_path(&self, session: SessionId) -> PathBuf {
        self.dir.join(PARTIES).join(session.to_string())
    }
}

const DEVICE: &str = "device";
const PARTIES: &str = "parties";

#[cfg(test)]
mod tests;
