//! The directory of a `posix` pool: one backing file per inode below a directory that only root may enter.
//!
//! The directory may be on a local disk or on any mounted DFS. Keys are relative paths made by the map; they are
//! opened beneath the pool's directory and never leave it, not even through a symlink.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use address_map::attr::Timestamp;
use address_map::namespace::object::BackingFacts;
use dashmap::DashMap;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Space of a pool, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// In all.
    pub total: u64,
    /// Free.
    pub free: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

/// See the module.
pub(super) struct Directory {
    root: OwnedFd,
    /// Directories that got a new name since they were last made durable.
    unsynced: DashMap<PathBuf, u64>,
    /// How often a directory got one.
    named: AtomicU64,
}

impl Directory {
    /// Opens the directory, which must exist and be writable.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let root = fs::open(directory, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty())?;
        let probe = format!(".vmds-probe-{}", std::process::id());
        fs::openat(&root, &probe, OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, PRIVATE_FILE)?;
        fs::unlinkat(&root, &probe, AtFlags::empty())?;
        Ok(Self { root, unsynced: DashMap::new(), named: AtomicU64::new(0) })
    }

    /// The directory itself.
    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Opens a backing file. `create`: it need not exist, and the tenant's directory is made when first needed.
    pub(super) fn open_object(&self, key: &str, write: bool, create: bool) -> io::Result<OwnedFd> {
        let access = if write || create { OFlags::RDWR } else { OFlags::RDONLY };
        match self.open_beneath(key, access) {
            Err(Errno::NOENT) if create => self.create_object(key),
            other => Ok(other?),
        }
    }

    fn open_beneath(&self, key: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mode = if flags.contains(OFlags::CREATE) { PRIVATE_FILE } else { Mode::empty() };
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
        fs::openat2(&self.root, key, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
    }

    fn create_object(&self, key: &str) -> io::Result<OwnedFd> {
        let create = OFlags::RDWR | OFlags::CREATE;
        let parent = Path::new(key).parent().unwrap_or(Path::new(""));
        let file = match self.open_beneath(key, create) {
            Err(Errno::NOENT) => {
                self.create_directories(parent)?;
                self.open_beneath(key, create)?
            }
            other => other?,
        };
        self.has_new_name(parent);
        Ok(file)
    }

    fn has_new_name(&self, directory: &Path) {
        self.unsynced.insert(directory.to_owned(), self.named.fetch_add(1, Ordering::Relaxed));
    }

    fn create_directories(&self, path: &Path) -> io::Result<()> {
        let mut at = PathBuf::new();
        for part in path {
            self.has_new_name(&at);
            at.push(part);
            match fs::mkdirat(&self.root, &at, PRIVATE_DIRECTORY) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes the name of a backing file survive a power loss (its bytes are the writer's business).
    pub(super) fn sync_name(&self, key: &str) -> io::Result<()> {
        let mut at = Path::new(key).parent();
        while let Some(directory) = at {
            // It stays noted until it has been synced: who comes meanwhile does the same once more.
            if let Some(name) = self.unsynced.get(directory).map(|name| *name) {
                let path = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
                let fd = fs::openat(
                    &self.root,
                    path,
                    OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                fs::fsync(fd)?;
                self.unsynced.remove_if(directory, |_, newest| *newest == name);
            }
            at = directory.parent();
        }
        Ok(())
    }

    /// What a backing file says about itself; `None` if it was never made.
    pub(super) fn facts(&self, key: &str) -> io::Result<Option<BackingFacts>> {
        match fs::statat(&self.root, key, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Some(BackingFacts {
                    size: stat.st_size as u64,
                    blocks: stat.st_blocks as u64,
                    mtime: Timestamp::new(stat.st_mtime, stat.st_mtime_nsec as u32),
                }))
            }
            Ok(_) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("object {key} is not a regular file")))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a backing file; it need not exist.
    pub(super) fn remove_object(&self, key: &str) -> io::Result<()> {
        match fs::unlinkat(&self.root, key, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a backing file another key in the same directory; what had it is gone.
    pub(super) fn rename_object(&self, from: &str, to: &str) -> io::Result<()> {
        fs::renameat(&self.root, from, &self.root, to)?;
        self.has_new_name(Path::new(to).parent().unwrap_or(Path::new("")));
        Ok(())
    }

    /// The keys of at most `most` backing files, in no order.
    pub(super) fn keys(&self, most: usize) -> io::Result<Vec<String>> {
        let (mut keys, mut directories) = (Vec::new(), vec![String::new()]);
        while let Some(directory) = directories.pop() {
            let path = if directory.is_empty() { "." } else { &directory };
            let fd = self.open_beneath(path, OFlags::DIRECTORY | OFlags::RDONLY)?;
            for entry in fs::Dir::new(fd)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().to_str() else { continue };
                let key = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
                match entry.file_type() {
                    FileType::Directory if name != "." && name != ".." => directories.push(key),
                    FileType::RegularFile => keys.push(key),
                    _ => {}
                }
                if keys.len() >= most {
                    return Ok(keys);
                }
            }
        }
        Ok(keys)
    }

    /// Its space.
    pub(super) fn space(&self) -> io::Result<Space> {
        let stat = fs::fstatvfs(&self.root)?;
        Ok(Space {
            total: stat.f_blocks * stat.f_frsize,
            free: stat.f_bavail * stat.f_frsize,
            inodes: stat.f_files,
            inodes_free: stat.f_favail,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        let pool = Directory::open(dir.path()).unwrap();
        (dir, pool)
    }

    #[test]
    fn a_tenants_directory_is_made_when_it_first_saves() {
        let (dir, pool) = pool();
        assert!(pool.facts("0a/0/1").unwrap().is_none());
        pool.open_object("0a/0/1", true, true).unwrap();
        pool.sync_name("0a/0/1").unwrap();
        assert_eq!(pool.facts("0a/0/1").unwrap().unwrap().size, 0);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&dir.path().join("0a").metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn keys_do_not_lead_out_of_the_pool() {
        let (dir, pool) = pool();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        for key in ["link", "../x", "/etc/passwd"] {
            assert!(pool.open_object(key, false, false).is_err(), "{key} was opened");
        }
    }
}
