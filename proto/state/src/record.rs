use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::StateError;

const MAGIC: &str = "lanrage-state";
/// The newest format this program reads, and the one it writes.
pub const FORMAT: u32 = 1;

/// Reads a record; `None` when there is no such file.
///
/// # Errors
/// [`StateError::Corrupt`], [`StateError::Newer`], or the kernel refuses.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
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

/// Replaces a record.
///
/// # Errors
/// The kernel refuses; the old record is whole.
pub fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), StateError> {
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
    let written = writeln!(file, "{MAGIC} {FORMAT} {}", hexadecimal_digest(&body))
        .and_then(|()| file.write_all(&body))
        .and_then(|()| file.sync_all());
    if let Err(error) = written {
        // On a full disk the half would take the room of other files.
        let _ = fs::remove_file(&temporary);
        return Err(StateError::io("write", &temporary)(error));
    }
    fs::rename(&temporary, path).map_err(StateError::io("replace", path))?;
    // The rename is durable once the directory is.
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(StateError::io("sync", dir))
}

/// Forgets a record; one that is not there is forgotten already.
///
/// # Errors
/// The kernel refuses.
pub fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StateError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn hexadecimal_digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), None);
        write(&path, &[1, 2, 3]).unwrap();
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), Some(vec![1, 2, 3]));

        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            assert!(matches!(read::<Vec<u8>>(&path), Err(StateError::Corrupt { .. })), "{end}");
        }
        let newer = String::from_utf8(whole).unwrap().replacen(" 1 ", " 2 ", 1);
        fs::write(&path, newer).unwrap();
        assert!(matches!(read::<Vec<u8>>(&path), Err(StateError::Newer { found: 2, .. })));
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
