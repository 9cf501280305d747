//! What survives a restart: enough to play again while control is down.
//!
//! ```text
//! <dir>/lock                    flock of the daemon that owns the directory; holds its process id
//! <dir>/device                  the device key, the active party
//! <dir>/parties/<session>       one membership: keys, secrets, server, party, ticket, relay map
//! ```
//!
//! Each file is one record of [`lanrage_state`].

mod record;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};

pub use record::{Device, PartyRecord, Server, random_key};
pub use writer::StateWriter;

use lanrage_proto::SessionId;
pub use lanrage_state::StateError;
use lanrage_state::{Lock, create_private_dir, read, remove, write};

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
        create_private_dir(dir)?;
        create_private_dir(&dir.join(PARTIES))?;
        Ok(Self { dir: dir.to_owned(), _lock: Lock::take(dir)? })
    }

    /// The device; made on first use.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn device(&self) -> Result<Device, StateError> {
        if let Some(device) = read(&self.dir.join(DEVICE))? {
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
        write(&self.dir.join(DEVICE), device)
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
        read(&self.party_path(session))
    }

    /// Replaces one membership's record.
    ///
    /// # Errors
    /// The kernel refuses; the old record is whole.
    pub fn save_party(&self, party: &PartyRecord) -> Result<(), StateError> {
        write(&self.party_path(party.session()), party)
    }

    /// Forgets a membership.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_party(&self, session: SessionId) -> Result<(), StateError> {
        remove(&self.party_path(session))
    }

    fn party_path(&self, session: SessionId) -> PathBuf {
        self.dir.join(PARTIES).join(session.to_string())
    }
}

const DEVICE: &str = "device";
const PARTIES: &str = "parties";

#[cfg(test)]
mod tests;
