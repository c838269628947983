//! A posix pool as sessions use it: calls go straight to a local file system, and get a deadline on any other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use address_map::namespace::object::BackingFacts;

use super::RemoteUse;
use super::backing::BackingFile;
use super::deadline::{Deadline, is_local};
use super::posix::{Directory, Space};

/// See the module.
pub struct PosixPool {
    path: PathBuf,
    host: String,
    directory: Arc<Directory>,
    deadline: Deadline,
    /// Of trees, which takes long without anything being wrong.
    removals: Deadline,
    /// Of syncs, for the same reason.
    syncs: Deadline,
    local: bool,
    passthrough: bool,
}

impl PosixPool {
    /// Opens the pool at `path`, which must exist and be writable. `remote`: how it is used if it is not local.
    pub fn open(path: PathBuf, host: String, remote: RemoteUse) -> io::Result<Self> {
        let deadline = Deadline::new(remote.patience);
        let opening = path.clone();
        let (directory, local) = deadline.call(move || {
            let directory = Directory::open(&opening)?;
            let local = is_local(directory.root())?;
            Ok((Arc::new(directory), local))
        })?;
        let (removals, syncs) = (Deadline::new(remote.patience), Deadline::new(remote.patience));
        let passthrough = local || remote.passthrough;
        Ok(Self { path, host, directory, deadline, removals, syncs, local, passthrough })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.path
    }

    /// The host whose disk this is, for placing tasks near the bytes.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is on a file system of this machine alone.
    pub(super) fn is_local(&self) -> bool {
        self.local
    }

    /// Whether the kernel may move bytes between applications and the files of this pool.
    pub fn passes_through(&self) -> bool {
        self.passthrough
    }

    /// Opens a backing file. `create`: it need not exist, and the tenant's directory is made when first needed.
    pub fn open_object(&self, key: &str, write: bool, create: bool) -> io::Result<BackingFile> {
        let file = self.call(key, move |directory, key| directory.open_object(key, write, create))?;
        Ok(BackingFile::new(file, !self.local))
    }

    /// Makes the name of a backing file survive a power loss (its bytes are the writer's business).
    pub fn sync_name(&self, key: &str) -> io::Result<()> {
        self.call(key, Directory::sync_name)
    }

    /// Makes the bytes of a backing file survive a power loss, and unless `data_only` its attributes; `false`: there is no
    /// such file.
    pub fn sync_bytes(&self, key: &str, data_only: bool) -> io::Result<bool> {
        let file = match self.open_object(key, false, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        let sync = move || {
            if data_only {
                rustix::fs::fdatasync(&file)?
            } else {
                rustix::fs::fsync(&file)?
            };
            Ok(true)
        };
        if self.local { sync() } else { self.syncs.call(sync) }
    }

    /// What a backing file says about itself; `None` if it was never made.
    pub fn facts(&self, key: &str) -> io::Result<Option<BackingFacts>> {
        self.call(key, Directory::facts)
    }

    /// Deletes a backing file; it need not exist.
    pub fn remove_object(&self, key: &str) -> io::Result<()> {
        self.call(key, Directory::remove_object)
    }

    /// Gives a backing file another key in the same directory; what had it is gone.
    pub fn rename_object(&self, from: &str, to: &str) -> io::Result<()> {
        let to = to.to_owned();
        self.call(from, move |directory, from| directory.rename_object(from, &to))
    }

    /// The keys of at most `most` backing files, in no order.
    pub fn keys(&self, most: usize) -> io::Result<Vec<String>> {
        self.call("", move |directory, _| directory.keys(most))
    }

    /// Deletes everything below a key; it need not exist. Where that takes long on a file system that is not local, it is
    /// an error, but goes on: whoever tries again finds less to do.
    pub fn remove_tree(&self, key: &str) -> io::Result<()> {
        let tree = self.path.join(key);
        let remove = move || match std::fs::remove_dir_all(tree) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        if self.local { remove() } else { self.removals.call(remove) }
    }

    /// Its space.
    pub fn space(&self) -> io::Result<Space> {
        self.call("", |directory, _| directory.space())
    }

    /// Does something with an open backing file.
    pub fn with_file(
        &self,
        file: &BackingFile,
        work: impl FnOnce(BorrowedFd<'_>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        if self.local {
            return work(file.as_fd());
        }
        let file = file.try_clone()?;
        self.deadline.call(move || work(file.as_fd()))
    }

    fn call<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Directory, &str) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if self.local {
            return work(&self.directory, key);
        }
        let (directory, key) = (self.directory.clone(), key.to_owned());
        self.deadline.call(move || work(&directory, &key))
    }
}
