//! Opening a disk cache: the directory must be fit for it, and what is in it from before is found again.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::{io, thread};

use address_map::namespace::object;
use dashmap::DashMap;
use parking_lot::Mutex;
use rustix::fs::XattrFlags;

use super::index::Index;
use super::note::{ATTRIBUTE, Note};
use super::room::OVERHEAD;
use super::{CacheSettings, DiskCache};
use crate::metrics::DiskCacheCounts;
use crate::pool::{PosixPool, RemoteUse, this_host};

/// Most files that are looked for; what more there is counts when it is used.
pub(super) const FOUND_MAX: usize = 1 << 20;
/// A file that is made to try what the directory can.
const PROBE: &str = ".vmds-cache-probe";

impl DiskCache {
    /// Opens a cache, and makes its directory if it is missing. What is in it from before is found on a thread of its own.
    ///
    /// # Errors
    /// A sentence: why the directory cannot be used, and what to do.
    pub fn open(settings: CacheSettings, counts: DiskCacheCounts) -> Result<Arc<Self>, String> {
        let shown = settings.directory.display().to_string();
        let told = |error: io::Error| format!("the disk cache directory {shown} cannot be used: {error}");
        make_private(&settings.directory, &shown)?;
        let files =
            PosixPool::open(settings.directory.clone(), this_host(), RemoteUse::default()).map_err(told)?;
        if !files.is_local() {
            return Err(format!(
                "the disk cache directory {shown} is not on a local file system; give one on a disk of this machine"
            ));
        }
        try_attributes(&files).map_err(|error| {
            format!(
                "the file system of the disk cache directory {shown} keeps no 'trusted' extended attributes ({error}); give one on ext4, XFS or Btrfs"
            )
        })?;
        let place = place_of(&settings.directory).map_err(told)?;
        counts.may_hold(settings.bytes);
        let index = Mutex::new(Index::default());
        let to_compare = AtomicBool::new(false);
        let cache =
            Arc::new(Self { settings, files, index, slots: DashMap::new(), counts, to_compare, place });
        let found = Arc::downgrade(&cache);
        thread::Builder::new().name("disk-cache".into()).spawn(move || find_all(&found)).map_err(told)?;
        Ok(cache)
    }

    /// Notes a file that is there; one that is nothing is removed.
    fn find_again(&self, key: &str) -> io::Result<()> {
        // What has another name is not ours.
        let Some(file) = object::parse_address(key) else { return Ok(()) };
        self.alone(file, |_| {
            let opened = self.files.open_object(key, false, false)?;
            let Some(note) = Note::of(&opened)? else { return self.drop_file(file) };
            let facts = rustix::fs::fstat(&opened)?;
            let nanoseconds = u64::try_from(facts.st_atime).unwrap_or(0).saturating_mul(1_000_000_000);
            let used = nanoseconds.saturating_add(facts.st_atime_nsec as u64);
            self.index.lock().found(file, note.held() + OVERHEAD, used);
            self.tell();
            Ok(())
        })
    }
}

/// Finds what is there from before. What is used meanwhile is found by who uses it.
fn find_all(cache: &Weak<DiskCache>) {
    let keys = match cache.upgrade().map(|cache| cache.files.keys(FOUND_MAX)) {
        Some(Ok(keys)) => keys,
        Some(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            return tracing::warn!(error, "cannot look for what is in the disk cache");
        }
        None => return,
    };
    for key in keys {
        let Some(cache) = cache.upgrade() else { return };
        if let Err(error) = cache.find_again(&key)
            && error.kind() != io::ErrorKind::NotFound
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, key, "cannot look at a file of the disk cache");
        }
    }
    if let Some(cache) = cache.upgrade() {
        cache.to_compare.store(true, Ordering::Release);
    }
}

/// Device and inode of a directory.
pub(super) fn place_of(directory: &Path) -> io::Result<(u64, u64)> {
    let facts = std::fs::metadata(directory)?;
    Ok((facts.dev(), facts.ino()))
}

/// Makes a directory that is for the controller alone, or checks one that is there.
fn make_private(directory: &Path, shown: &str) -> Result<(), String> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| format!("the disk cache directory {shown} cannot be made: {error}"))?;
    let facts = std::fs::metadata(directory)
        .map_err(|error| format!("the disk cache directory {shown} cannot be looked at: {error}"))?;
    match facts.mode() & 0o7777 {
        mode if mode & 0o077 != 0 => {
            Err(format!("the disk cache directory {shown} is open to others (mode {mode:04o}); make it 0700"))
        }
        _ => Ok(()),
    }
}

/// Tries whether files can be noted in.
fn try_attributes(files: &PosixPool) -> io::Result<()> {
    let file = files.open_object(PROBE, true, true)?;
    let tried = rustix::fs::fsetxattr(&file, ATTRIBUTE, b"probe", XattrFlags::empty());
    files.remove_object(PROBE)?;
    Ok(tried?)
}
