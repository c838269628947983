//! Locks on directories: two controllers never work on the same state or socket.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// Why a directory could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another vmds-controller{} is using {}; stop it first, or give this one directories of its own", of(.pid), .dir.display())]
    Taken {
        /// The directory.
        dir: PathBuf,
        /// The other process, if it said.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("the directory {} cannot be locked", .dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

fn of(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// Locked directories; free again when dropped or when the process ends, however it ends.
#[derive(Debug)]
pub struct Locks(#[expect(dead_code, reason = "held open, never read")] Vec<File>);

impl Locks {
    /// Locks the directories, each once.
    ///
    /// # Errors
    /// One of them is locked by another process, or cannot be.
    pub fn acquire(dirs: &[&Path]) -> Result<Self, LockError> {
        let mut real: Vec<PathBuf> =
            dirs.iter().map(|dir| dir.canonicalize().unwrap_or(dir.into())).collect();
        real.sort();
        real.dedup();
        Ok(Self(real.iter().map(|dir| lock(dir)).collect::<Result<_, _>>()?))
    }
}

fn lock(dir: &Path) -> Result<File, LockError> {
    let io = |source| LockError::Io { dir: dir.to_owned(), source };
    let path = dir.join("controller.lock");
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            file.set_len(0).map_err(io)?;
            write!(file, "{}", std::process::id()).map_err(io)?;
            Ok(file)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            Err(LockError::Taken { dir: dir.to_owned(), pid })
        }
        Err(error) => Err(io(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_once() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let held = Locks::acquire(&[one.path(), one.path()]).unwrap();
        let error = Locks::acquire(&[two.path(), one.path()]).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        assert!(error.contains(&one.path().display().to_string()), "{error}");
        drop(held);
        Locks::acquire(&[two.path(), one.path()]).unwrap();
    }
}
