use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UnixListener;

/// `sun_path` of `struct sockaddr_un` has 108 bytes, the last of them 0 (unix(7)).
const PATH_LEN_MAX: usize = 107;

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum Listen {
    /// Longer than a socket's address can be.
    #[error("the path is longer than {PATH_LEN_MAX} bytes: choose another --admin-socket")]
    TooLong,
    /// Another process listens there.
    #[error("another relay listens there: stop it, or choose another --admin-socket")]
    InUse,
    /// Something else has this name.
    #[error("a file that is no socket is there: choose another --admin-socket")]
    NoSocket,
    /// What the kernel said.
    #[error("{0}: choose another --admin-socket, or `off`")]
    Io(#[from] io::Error),
}

/// The listening socket. Its file is removed when this is dropped, unless it is another's by then.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    inode: u64,
    /// Another process listens on: the file stays.
    pub(crate) stays: Arc<AtomicBool>,
}

impl AdminSocket {
    /// Listens at `path`, where only the relay's user and root may connect. A socket that nobody
    /// listens at is replaced; the name never points at a socket that others may connect to.
    pub(crate) fn bind(path: &Path) -> Result<Self, Listen> {
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        if temporary.as_os_str().len() > PATH_LEN_MAX {
            return Err(Listen::TooLong);
        }
        match fs::symlink_metadata(path) {
            Ok(file) if !file.file_type().is_socket() => return Err(Listen::NoSocket),
            Ok(_) if StdUnixStream::connect(path).is_ok() => return Err(Listen::InUse),
            Ok(_) | Err(_) => {}
        }
        // Left behind by a process of the same number that was killed just here.
        let _nothing_there = fs::remove_file(&temporary);
        let listener = UnixListener::bind(&temporary)?;
        fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&temporary)?.ino();
        fs::rename(&temporary, path)?;
        Ok(Self { listener, path: path.to_owned(), inode, stays: Arc::default() })
    }

    /// Listens on where the process before did; `None` if that was somewhere else.
    pub(crate) fn adopt(path: &Path, listener: OwnedFd) -> io::Result<Option<Self>> {
        let listener = UnixListener::from_std(StdUnixListener::from(listener))?;
        let is_there = listener.local_addr()?.as_pathname().is_some_and(|bound| {
            // It was bound under another name, and moved (see `bind`).
            bound.parent() == path.parent()
        });
        match fs::symlink_metadata(path) {
            Ok(file) if is_there && file.file_type().is_socket() => {
                let (path, inode) = (path.to_owned(), file.ino());
                Ok(Some(Self { listener, path, inode, stays: Arc::default() }))
            }
            _ => Ok(None),
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let stays = self.stays.load(Ordering::Relaxed);
        if !stays && fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _already_gone = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn takes_a_stale_socket_but_no_live_one_and_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let first = AdminSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(AdminSocket::bind(&path), Err(Listen::InUse)));
        drop(first);
        assert!(!path.exists());

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let again = AdminSocket::bind(&path).unwrap();
        // Another's by now.
        fs::remove_file(&path).unwrap();
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(again);
        assert!(path.exists());
        drop(other);

        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        assert!(matches!(AdminSocket::bind(&path), Err(Listen::NoSocket)));
        let long = dir.path().join("x".repeat(108));
        assert!(matches!(AdminSocket::bind(&long), Err(Listen::TooLong)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }
}
