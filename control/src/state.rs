//! The state directory: root key, database, lock.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use lanrage_proto::bytes::{decode_base64, encode_base64};
use lanrage_proto::map::root_hash;
use lanrage_proto::{DeviceKey, RootHash};
pub use lanrage_state::Lock;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::random::random_bytes;
use crate::store::{Opening, Store};

const ROOT_FILE: &str = "root.key";
const ROOT_PREFIX: &str = "lanrage-root-1.";
const DATABASE_FILE: &str = "control.db";

/// An initialised state directory.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    root: SigningKey,
}

impl StateDir {
    /// Whether the directory holds what [`StateDir::create`] makes, or a part of it.
    ///
    /// # Errors
    /// [`Failure::State`]: not permitted to look.
    pub fn exists(dir: &Path) -> Result<bool, Failure> {
        let there = |file| {
            let path = dir.join(file);
            path.try_exists().map_err(|error| failure(&path, "cannot be read", error))
        };
        Ok(there(ROOT_FILE)? || there(DATABASE_FILE)?)
    }

    /// Opens the directory, which is made when it is not there.
    ///
    /// # Errors
    /// See [`StateDir::create`] and [`StateDir::open`].
    pub async fn open_or_create(dir: &Path) -> Result<Self, Failure> {
        if Self::exists(dir)? { Self::open(dir) } else { Self::create(dir).await }
    }

    /// Makes directory, root key and database.
    ///
    /// # Errors
    /// [`Failure::State`]: not permitted, or in use.
    pub async fn create(dir: &Path) -> Result<Self, Failure> {
        let failed = |what| move |error| failure(dir, what, error);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(failed("cannot be made"))?;
        fs::set_permissions(dir, Permissions::from_mode(0o700))
            .map_err(failed("cannot be closed to other users (chmod 700)"))?;
        let _lock = take_lock(dir)?;
        let database = dir.join(DATABASE_FILE);
        // SQLite makes its other files with the database's permissions.
        new_file(&database).map_err(|error| failure(&database, "cannot be made", error))?;
        let store = open_store(&database, Opening::Create).await?;
        store.close().await;
        // Last: a directory with a root key is whole.
        write_root(&dir.join(ROOT_FILE))?;
        tracing::warn!(
            dir = %dir.display(),
            "made a new state directory with a root key of its own: clients and relays of another \
             one do not trust it"
        );
        Self::open(dir)
    }

    /// Reads the root key.
    ///
    /// # Errors
    /// [`Failure::State`]: not initialised, the key missing, damaged, or open to others.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        if !Self::exists(dir)? {
            let dir = dir.display();
            let message = format!("{dir} is not initialised: lanrage-control init --dir {dir}");
            return Err(Failure::State(message));
        }
        let root = read_root(&dir.join(ROOT_FILE))?;
        Ok(Self { dir: dir.to_owned(), root })
    }

    /// Control's root key.
    pub(crate) const fn root(&self) -> &SigningKey {
        &self.root
    }

    /// What clients pin.
    pub fn root_hash(&self) -> RootHash {
        root_hash(&DeviceKey(self.root.verifying_key().to_bytes()))
    }

    /// See [`Lock`].
    ///
    /// # Errors
    /// [`Failure::State`] when another process has it.
    pub fn lock(&self) -> Result<Lock, Failure> {
        take_lock(&self.dir)
    }

    /// Opens the database to serve from it.
    pub(crate) async fn open_store(&self, _lock: &Lock) -> Result<Store, Failure> {
        open_store(&self.dir.join(DATABASE_FILE), Opening::Serve).await
    }

    /// Opens the database of a service that may be running.
    pub(crate) async fn visit_store(&self) -> Result<Store, Failure> {
        open_store(&self.dir.join(DATABASE_FILE), Opening::Visit).await
    }
}

fn take_lock(dir: &Path) -> Result<Lock, Failure> {
    Lock::take(dir).map_err(|error| Failure::State(error.to_string()))
}

async fn open_store(path: &Path, opening: Opening) -> Result<Store, Failure> {
    Store::open(path, opening).await.map_err(|error| Failure::State(error.to_string()))
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Makes a new root key.
fn write_root(path: &Path) -> Result<(), Failure> {
    let failed = |error| failure(path, "cannot be written", error);
    let seed = Zeroizing::new(random_bytes::<32>());
    let text = Zeroizing::new(format!("{ROOT_PREFIX}{}\n", encode_base64(&*seed)));
    write_whole(path, text.as_bytes()).map_err(failed)
}

/// Writes a file that only its owner may read, so that it is there whole or not at all.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("new");
    let mut file = new_file(&partial)?;
    file.set_len(0)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn read_root(path: &Path) -> Result<SigningKey, Failure> {
    let failed = |error| failure(path, "cannot be read", error);
    if !path.try_exists().map_err(failed)? {
        let path = path.display();
        let remedy = "restore it from a backup, or begin anew in another directory";
        return Err(Failure::State(format!("{path} is missing: {remedy}")));
    }
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(Failure::State(format!("{path} is open to other users: chmod 600 {path}")));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    let seed = text.trim_end().strip_prefix(ROOT_PREFIX).and_then(decode_base64::<32>);
    let seed = Zeroizing::new(seed.ok_or_else(|| {
        let path = path.display();
        Failure::State(format!("{path} is corrupt or newer than this program: restore it"))
    })?);
    Ok(SigningKey::from_bytes(&seed))
}

fn failure(path: &Path, what: &str, error: io::Error) -> Failure {
    // EACCES and EPERM.
    let remedy = if error.kind() == io::ErrorKind::PermissionDenied {
        ": run as root (sudo), or as the directory's owner"
    } else {
        ""
    };
    Failure::State(format!("{} {what}: {error}{remedy}", path.display()))
}
