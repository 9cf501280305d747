//! One record in one file.
//!
//! ```text
//! lanrage-state <format> <SHA-256 of the body in hexadecimal>\n<body: JSON>
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::StateError;

const MAGIC: &str = "lanrage-state";
/// The newest format this program reads, and the one it writes.
pub(super) const FORMAT: u32 = 1;

/// `None` when there is no such file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let content = match fs::read(path) {
        Ok(content) => Zeroizing::new(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::io("read", path)(error)),
    };
    let corrupt = |why: &str| StateError::Corrupt { path: path.to_owned(), why: why.to_owned() };
    let line_end = content.iter().position(|b| *b == b'\n').ok_or_else(|| corrupt("no header"))?;
    let (header, body) = (&content[..line_end], &content[line_end + 1..]);
    let header = std::str::from_utf8(header).map_err(|_| corrupt("no header"))?;
    let mut words = header.split(' ');
    let (magic, format, checksum) = (words.next(), words.next(), words.next());
    let format = format.and_then(|format| format.parse::<u32>().ok()).filter(|format| *format > 0);
    let (Some(MAGIC), Some(format)) = (magic, format) else {
        return Err(corrupt("no header"));
    };
    if format > FORMAT {
        return Err(StateError::Newer { path: path.to_owned(), found: format, known: FORMAT });
    }
    if checksum != Some(&hexadecimal_digest(body)) {
        return Err(corrupt("its checksum does not fit"));
    }
    serde_json::from_slice(body).map(Some).map_err(|error| corrupt(&error.to_string()))
}

/// Replaces the file so that after a crash at any point it is the old one or the new one, whole.
pub(super) fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), StateError> {
    let body = serde_json::to_vec(record).map(Zeroizing::new).map_err(io::Error::other);
    let body = body.map_err(StateError::io("encode", path))?;
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(StateError::io("create", &temporary))?;
    writeln!(file, "{MAGIC} {FORMAT} {}", hexadecimal_digest(&body))
        .and_then(|()| file.write_all(&body))
        .and_then(|()| file.sync_all())
        .map_err(StateError::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(StateError::io("replace", path))?;
    // The rename is durable once the directory is.
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(StateError::io("sync", dir))
}

fn hexadecimal_digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}
