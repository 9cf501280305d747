use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::StateError;

const NAME: &str = "lock";

/// An flock(2) on `<dir>/lock`: the kernel drops it with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock and writes this process's id into it.
    ///
    /// # Errors
    /// [`StateError::InUse`] when another process holds it.
    pub fn take(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join(NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StateError::io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                let known = file.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
                let pid = if known { pid.trim() } else { "unknown" }.to_owned();
                return Err(StateError::InUse { dir: dir.to_owned(), pid });
            }
            Err(error) => return Err(StateError::io("lock", &path)(error.into())),
        }
        let lock = Self { file };
        lock.claim();
        Ok(lock)
    }

    /// The same lock, for another process to [`adopt`](Self::adopt): it is held until both have
    /// dropped it.
    ///
    /// # Errors
    /// The kernel has no descriptor left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// The lock of another process, by the descriptor that it gave.
    ///
    /// # Errors
    /// The descriptor is not of this directory's lock.
    pub fn adopt(dir: &Path, lock: OwnedFd) -> Result<Self, StateError> {
        let (path, file) = (dir.join(NAME), File::from(lock));
        let error = StateError::io("take over", &path);
        let same = file.metadata().and_then(|held| {
            let named = std::fs::metadata(&path)?;
            Ok((held.dev(), held.ino()) == (named.dev(), named.ino()))
        });
        match same {
            Ok(true) => Ok(Self { file }),
            Ok(false) => Err(error(io::Error::other("it is the lock of another directory"))),
            Err(source) => Err(error(source)),
        }
    }

    /// Writes this process's id into the lock. It is for people: on a full disk the lock holds
    /// without it.
    pub fn claim(&self) {
        let mut file = &self.file;
        let id = format!("{}\n", std::process::id());
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(id.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_who_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let held = Lock::take(dir.path()).unwrap();
        let error = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_lock_goes_on_with_whom_it_was_given_to() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let held = Lock::take(dir.path()).unwrap();
        let _other = Lock::take(other.path()).unwrap();
        assert!(Lock::adopt(other.path(), held.duplicate().unwrap()).is_err());
        let given = Lock::adopt(dir.path(), held.duplicate().unwrap()).unwrap();
        drop(held);
        assert!(Lock::take(dir.path()).is_err());
        given.claim();
        drop(given);
        Lock::take(dir.path()).unwrap();
    }
}
