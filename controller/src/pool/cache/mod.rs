//! The disk cache of an object store: what was read from the bucket is kept in a directory of this machine, up to a
//! bound, and read from there.
//!
//! A file of the cache holds *one version of one object*, or those chunks of it that somebody has read. It never becomes
//! another version: bytes that are replaced have another object, and that has another file. It is written by this process
//! alone; whoever reads it is given a descriptor that can do nothing else. So nobody can put anything into the cache, and a
//! descriptor leads to the bytes that it was given out for, as an address does.
//!
//! **Guarantees**: a chunk is proven with the sums of its object each time before somebody begins to use it, so that no byte
//! is believed because it was right once; where nobody has made sums, a chunk is noted as there after its bytes are durable. All
//! files together take no more than the bound; what somebody has leased stays. **Assumptions**: nobody but this process writes to
//! the directory, save for what damages it.

mod copy;
mod fill;
mod index;
mod note;
mod open;
mod room;
mod source;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use address_map::ids::TenantId;
use address_map::namespace::object;
use address_map::record::StoredObject;
use dashmap::DashMap;
use parking_lot::{Condvar, Mutex};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use index::Index;
use note::Note;
pub use source::{Fetched, FillError, Proof, Source};

use super::{BackingFile, PosixPool};
use crate::lease::File;
use crate::metrics::DiskCacheCounts;

/// Where a cache is, and how large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// The directory.
    pub directory: PathBuf,
    /// What all its files may take together, bytes.
    pub bytes: u64,
}

/// What a cache takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// Bytes of objects in it, and what else their files take.
    pub bytes: u64,
    /// How many objects, whole or in part.
    pub objects: u64,
}

/// A file that somebody may read.
pub struct Readable {
    /// The descriptor, which can do nothing else.
    pub descriptor: BackingFile,
    /// Which file it is: another one in its place has another number.
    pub tag: u64,
    /// What is there or not as a whole, bytes.
    pub chunk: u64,
}

/// The work on one file.
#[derive(Default)]
struct Slot {
    /// Chunks that are on their way. Held while the file is opened, made, noted in, or removed.
    loading: Mutex<BTreeSet<usize>>,
    fewer: Condvar,
}

/// See the module.
pub struct DiskCache {
    settings: CacheSettings,
    files: PosixPool,
    index: Mutex<Index>,
    slots: DashMap<File, Arc<Slot>>,
    counts: DiskCacheCounts,
    /// All that is in it from before is found, and not compared with the map yet.
    to_compare: AtomicBool,
    /// Device and inode of the directory.
    place: (u64, u64),
}

impl DiskCache {
    /// Where it is, and how large.
    pub fn settings(&self) -> &CacheSettings {
        &self.settings
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.settings.directory
    }

    /// Whether its directory is the one that it has opened, and not removed or another one by now.
    pub fn is_in_place(&self) -> bool {
        open::place_of(self.directory()).is_ok_and(|place| place == self.place)
    }

    /// What it takes.
    pub fn usage(&self) -> CacheUse {
        let index = self.index.lock();
        CacheUse { bytes: index.bytes(), objects: index.files() as u64 }
    }

    /// The file that holds this object, if there is one; what holds another object of the same inode is removed.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn find(&self, file: File, stored: &StoredObject) -> io::Result<Option<Readable>> {
        self.alone(file, |_| {
            let Some((descriptor, note)) = self.open_noted(file, stored, false)? else { return Ok(None) };
            self.adopt(file, &note);
            self.index.lock().used(file);
            remember_use(&descriptor);
            Ok(Some(Readable { descriptor, tag: note.tag, chunk: note.chunk }))
        })
    }

    /// As [`DiskCache::find`], but finding it is no use of it.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn has(&self, file: File, stored: &StoredObject) -> io::Result<bool> {
        self.alone(file, |_| Ok(self.open_noted(file, stored, false)?.is_some()))
    }

    /// Removes what it has of a file. Whoever reads it goes on with what is there already.
    pub fn remove(&self, file: File) {
        if let Err(error) = self.alone(file, |_| self.drop_file(file)) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "a file stays in the disk cache that nobody needs");
        }
    }

    /// Removes what it has of a tenant.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn remove_tenant(&self, tenant: TenantId) -> io::Result<()> {
        let files = self.index.lock().all();
        for file in files.into_iter().filter(|(of, _)| *of == tenant) {
            self.remove(file);
        }
        // Also what was not found yet.
        self.files.remove_tree(&object::tenant_prefix(tenant))
    }

    /// Removes all it has: it is not used any more. What else is in the directory stays.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn clear(&self) -> io::Result<()> {
        let keys = self.files.keys(open::FOUND_MAX)?;
        let tenants: BTreeSet<TenantId> =
            keys.iter().filter_map(|key| Some(object::parse_address(key)?.0)).collect();
        tenants.into_iter().try_for_each(|tenant| self.remove_tenant(tenant))
    }

    /// Whether what was found in it is to be compared with the map: once.
    pub fn is_to_be_compared(&self) -> bool {
        self.to_compare.swap(false, Ordering::AcqRel)
    }

    /// The files that are known, for comparing them with the map.
    pub fn all(&self) -> Vec<File> {
        self.index.lock().all()
    }

    /// Does something with a file, of which these chunks are on their way, that nobody else may do meanwhile. Nothing in it may wait for the network.
    fn alone<T>(&self, file: File, work: impl FnOnce(&BTreeSet<usize>) -> T) -> T {
        let slot = self.slots.entry(file).or_default().clone();
        let loading = slot.loading.lock();
        let done = work(&loading);
        drop(loading);
        self.put_back(file);
        done
    }

    /// Forgets that somebody was at a file, unless others are. Whoever is has a count of it; two are the table's and that
    /// of who calls.
    fn put_back(&self, file: File) {
        self.slots.remove_if(&file, |_, slot| Arc::strong_count(slot) <= 2);
    }

    /// Opens the file of an inode if it holds this object. Any other is removed: nobody will ask for it again.
    fn open_noted(
        &self,
        file: File,
        stored: &StoredObject,
        write: bool,
    ) -> io::Result<Option<(BackingFile, Note)>> {
        let opened = match self.files.open_object(&key_of(file), write, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.index.lock().remove(file);
                self.tell();
                return Ok(None);
            }
            opened => opened?,
        };
        let size = rustix::fs::fstat(&opened)?.st_size as u64;
        let note = Note::of(&opened)?.filter(|note| note.is_of(stored) && size == stored.size);
        match note {
            Some(note) => Ok(Some((opened, note))),
            None => self.drop_file(file).map(|()| None),
        }
    }

    /// Notes a file that is there, if it is not known.
    fn adopt(&self, file: File, note: &Note) {
        self.index.lock().found(file, note.held() + room::OVERHEAD, index::now());
        self.tell();
    }

    /// Removes a file, which need not be there.
    fn drop_file(&self, file: File) -> io::Result<()> {
        self.files.remove_object(&key_of(file))?;
        self.index.lock().remove(file);
        self.tell();
        Ok(())
    }

    /// Says in the metrics how large it is.
    fn tell(&self) {
        let CacheUse { bytes, objects } = self.usage();
        self.counts.holds(bytes, objects);
    }
}

/// Where the file of an inode is: as its backing file would be in a posix pool.
fn key_of((tenant, ino): File) -> String {
    object::address(tenant, address_map::ids::PoolId(0), ino).key
}

/// Notes in the file itself that it was used now, for the next process. The least recently used go first, as far as anybody
/// knows: that this cannot be noted is no reason not to read it.
fn remember_use(file: impl AsFd) {
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let last_modification = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    if let Err(error) = rustix::fs::futimens(file, &Timestamps { last_access, last_modification }) {
        tracing::debug!(%error, "cannot note that a file of the disk cache is used");
    }
}

/// Whether an error says that there is no room.
fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}
