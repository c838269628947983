//! What a store's directory looks like, who may use it, and which version wrote it.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::StoreError;
use crate::error::{MapError, Result};

/// Newest layout of a store's directory that is known here, and the one written.
pub const STORE_FORMAT: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
const FORMAT_DRAFT: &str = "FORMAT.new";
const LOCK_FILE: &str = "LOCK";
const DATABASE_DIR: &str = "fjall";
/// What fjall writes last when it makes a database.
const DATABASE_MARKER: &str = "version";

/// Takes the store at `path` for this process, made if absent, and answers the directory for the database.
///
/// The store is this process's own until the file is closed.
pub(super) fn claim(path: &Path) -> Result<(File, PathBuf)> {
    let failed = |source| StoreError::Io { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(failed)?;
    let lock = lock(path)?;
    match read_format(path)? {
        Some(found) if found > STORE_FORMAT => return Err(MapError::TooNew { found, known: STORE_FORMAT }),
        Some(_) => {}
        None if is_fresh(path).map_err(failed)? => write_format(path).map_err(failed)?,
        None => return Err(StoreError::NotAStore(path.to_owned()).into()),
    }
    let directory = path.join(DATABASE_DIR);
    discard_unfinished(&directory).map_err(failed)?;
    Ok((lock, directory))
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let failed = |source| StoreError::Io { path: path.to_owned(), source };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join(LOCK_FILE))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The layout the store was written in; `None` if there is no marker.
fn read_format(path: &Path) -> Result<Option<u32>, StoreError> {
    match fs::read_to_string(path.join(FORMAT_FILE)) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| StoreError::BadFormat(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(StoreError::BadFormat(path.to_owned())),
        Err(source) => Err(StoreError::Io { path: path.to_owned(), source }),
    }
}

/// Whether nothing is in the directory but what opening a store leaves there before it writes the marker.
fn is_fresh(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if name != LOCK_FILE && name != FORMAT_DRAFT {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the marker whole or not at all, before anything else is in the store.
fn write_format(path: &Path) -> io::Result<()> {
    let draft = path.join(FORMAT_DRAFT);
    let mut file = File::create(&draft)?;
    writeln!(file, "{STORE_FORMAT}")?;
    file.sync_all()?;
    fs::rename(draft, path.join(FORMAT_FILE))?;
    File::open(path)?.sync_all()
}

/// Removes a database whose making was interrupted: it was never opened, holds nothing, and fjall refuses to finish it.
fn discard_unfinished(directory: &Path) -> io::Result<()> {
    if directory.try_exists()? && !directory.join(DATABASE_MARKER).try_exists()? {
        fs::remove_dir_all(directory)?;
    }
    Ok(())
}
