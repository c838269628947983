//! An open backing file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

/// A descriptor of a backing file. Closing one on a file system that is not local may take as long as any other call on
/// it, and is done elsewhere.
#[derive(Debug)]
pub struct BackingFile {
    file: Option<OwnedFd>,
    remote: bool,
}

impl BackingFile {
    pub(super) fn new(file: OwnedFd, remote: bool) -> Self {
        Self { file: Some(file), remote }
    }

    /// Whether calls on it may wait for another machine.
    pub fn is_remote(&self) -> bool {
        self.remote
    }

    pub(super) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }
}

impl From<OwnedFd> for BackingFile {
    /// Something that is closed at once.
    fn from(file: OwnedFd) -> Self {
        Self::new(file, false)
    }
}

impl AsFd for BackingFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.file {
            Some(file) => file.as_fd(),
            None => unreachable!("it is closed with this value"),
        }
    }
}

impl Drop for BackingFile {
    fn drop(&mut self) {
        let Some(file) = self.file.take().filter(|_| self.remote) else { return };
        if let Err(error) = thread::Builder::new().name("pool-close".into()).spawn(move || drop(file)) {
            tracing::error!(%error, "no thread closes a backing file");
        }
    }
}
