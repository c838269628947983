//! Locks on directories: two controllers never work on the same state or socket.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// How long a lock is waited for: a predecessor that was just killed has it until it has ended.
pub const PREDECESSOR_ENDS_WITHIN: Duration = Duration::from_secs(3);
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(20);

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
    /// Locks the directories, each once, waiting `patience` at most for all of them.
    ///
    /// # Errors
    /// One of them is still locked by another process then, or cannot be locked.
    pub fn acquire(dirs: &[&Path], patience: Duration) -> Result<Self, LockError> {
        let deadline = Instant::now() + patience;
        let mut real: Vec<PathBuf> =
            dirs.iter().map(|dir| dir.canonicalize().unwrap_or(dir.into())).collect();
        real.sort();
        real.dedup();
        Ok(Self(real.iter().map(|dir| lock(dir, deadline)).collect::<Result<_, _>>()?))
    }
}

fn lock(dir: &Path, deadline: Instant) -> Result<File, LockError> {
    let io = |source| LockError::Io { dir: dir.to_owned(), source };
    let path = dir.join("controller.lock");
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(TRY_EVERY);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(LockError::Taken { dir: dir.to_owned(), pid });
            }
            Err(error) => return Err(io(error.into())),
        }
    }
    file.set_len(0).map_err(io)?;
    write!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_once() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let held = Locks::acquire(&[one.path(), one.path()], Duration::ZERO).unwrap();
        let error = Locks::acquire(&[two.path(), one.path()], Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        assert!(error.contains(&one.path().display().to_string()), "{error}");
        drop(held);
        Locks::acquire(&[two.path(), one.path()], Duration::ZERO).unwrap();
    }

    #[test]
    fn a_predecessor_that_is_ending_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let held = Locks::acquire(&[dir.path()], Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Locks::acquire(&[dir.path()], Duration::from_secs(60)));
            drop(held);
            waiting.join().unwrap().unwrap();
        });
    }
}
