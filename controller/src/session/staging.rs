//! Files of an object store while they are being written: each has a backing file in the pool's staging directory, as
//! every file of a posix pool has one, until its bytes are brought to the store as one new object.
//!
//! **Guarantees**: bytes acknowledged to a writer are in the backing file, which outlives VMDS and controller; an
//! object is in the map only when all of it is in the store; what the map leads to is deleted only after something else
//! has taken its place.
//! **Assumptions**: the backing file of a volatile inode, where there is one, is the truth about its bytes; that of any
//! other is a leftover. One file is brought to or from the store by one thread at a time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use address_map::attr::Timestamp;
use address_map::error::{Refusal, Result};
use address_map::ids::{Ino, PoolId};
use address_map::limits::SMALL_FILE_MAX;
use address_map::map::Tree;
use address_map::namespace::contents::{self, Contents};
use address_map::namespace::lookup;
use address_map::namespace::object::{self, BackingFacts};
use address_map::record::{Inode, Layout, StoredObject};
use dashmap::DashMap;
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, Stat};

use super::{DataPlane, io_refusal};
use crate::lease::File;
use crate::pool::{BackingFile, ObjectStore, Pool, set_mtime};

/// How long somebody waits for another one who is bringing the same file to or from the store, before saying so.
pub(super) const WORKING_AFTER: Duration = Duration::from_secs(20);
/// How often a file is uploaded anew because it changed meanwhile, before it is left for later.
const UPLOADS_MAX: usize = 3;

/// A backing file at one moment: any later change of it is another stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            size: stat.st_size as u64,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

/// Whether something may be done that takes as long as the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// No: others wait on this thread.
    Quick,
    /// Yes.
    Slow,
}

/// What the store has of a file: the backing file as it was when its bytes were last the same there.
pub(super) type Settled = Option<Stamp>;

/// The files that are being written.
#[derive(Default)]
pub(crate) struct Staging {
    files: DashMap<File, Arc<Mutex<Settled>>>,
}

impl Staging {
    /// Does something with a file that nobody else may do meanwhile. `None`: somebody else is at it, for longer than may
    /// be waited at this pace.
    pub(super) fn alone<T>(&self, file: File, pace: Pace, work: impl FnOnce(&mut Settled) -> T) -> Option<T> {
        let slot = self.files.entry(file).or_default().clone();
        let mut settled = match pace {
            Pace::Quick => slot.try_lock()?,
            Pace::Slow => slot.try_lock_for(WORKING_AFTER)?,
        };
        let done = work(&mut settled);
        let nothing_to_remember = settled.is_none();
        drop(settled);
        if nothing_to_remember {
            // Whoever waits for its turn holds a count of it; two are the table's and ours.
            self.files.remove_if(&file, |_, slot| Arc::strong_count(slot) <= 2);
        }
        Some(done)
    }
}

/// A file of an object store: what is needed to move its bytes.
pub(super) struct Written<'a> {
    pub(super) tree: &'a Tree,
    pub(super) ino: Ino,
    pub(super) pool: Arc<Pool>,
    pub(super) store: ObjectStore,
    pub(super) number: PoolId,
    /// Key of the backing file.
    key: String,
}

impl Written<'_> {
    fn file(&self) -> File {
        (self.tree.tenant(), self.ino)
    }

    /// The backing file, if there is one.
    pub(super) fn open(&self, write: bool) -> Result<Option<BackingFile>> {
        match self.pool.files.open_object(&self.key, write, false) {
            Ok(descriptor) => Ok(Some(descriptor)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_refusal(error)),
        }
    }

    /// Removes the backing file.
    pub(super) fn clear(&self) -> Result<()> {
        self.pool.files.remove_object(&self.key).map_err(io_refusal)
    }

    /// The name of a backing file that is not complete.
    fn unfinished(&self) -> String {
        format!("{}~", self.key)
    }

    /// Makes the backing file, with nothing in it.
    pub(super) fn make_empty(&self, mtime: Timestamp) -> Result<BackingFile> {
        self.make(mtime, |_| Ok(()))
    }

    /// Makes the backing file, with the bytes that the map leads to. `None`: they are in the store, and there is no time.
    pub(super) fn fill(&self, inode: &Inode, pace: Pace) -> Result<Option<BackingFile>> {
        let mtime = inode.mtime;
        match &inode.layout {
            Layout::Small { .. } => {
                let bytes = contents::small(&self.tree.view(), self.ino)?;
                self.make(mtime, |file| write_all(file, &bytes)).map(Some)
            }
            Layout::Stored(_) if pace == Pace::Quick => Ok(None),
            Layout::Stored(stored) => self.make(mtime, |file| self.download(stored, file)).map(Some),
            _ => self.make_empty(mtime).map(Some),
        }
    }

    fn download(&self, stored: &StoredObject, into: &BackingFile) -> io::Result<()> {
        let StoredObject { object, etag, size } = stored;
        let into = Arc::new(into.as_fd().try_clone_to_owned()?);
        self.store.wait(async |s3| s3.download(&object.key, etag, *size, into).await)
    }

    /// Makes the backing file under another name first: under its own it is the truth.
    fn make(
        &self,
        mtime: Timestamp,
        fill: impl FnOnce(&BackingFile) -> io::Result<()>,
    ) -> Result<BackingFile> {
        let made = || {
            let unfinished = self.unfinished();
            self.pool.files.remove_object(&unfinished)?;
            let file = self.pool.files.open_object(&unfinished, true, true)?;
            fill(&file)?;
            // After a power loss a file that was renamed must not be an empty one.
            if rustix::fs::fstat(&file)?.st_size > 0 {
                rustix::fs::fdatasync(&file)?;
            }
            set_mtime(&file, mtime)?;
            self.pool.files.rename_object(&unfinished, &self.key)?;
            Ok(file)
        };
        made().map_err(io_refusal)
    }
}

impl DataPlane {
    /// The object store that the bytes of an inode belong to, if they do.
    pub(super) fn store_of(&self, inode: &Inode) -> Option<(PoolId, Arc<Pool>, ObjectStore)> {
        let number = inode.layout.pool()?;
        let pool = self.pools.get(number).ok()?;
        let store = pool.store.clone()?;
        Some((number, pool, store))
    }

    /// A file whose bytes belong to an object store; `None` if they do not.
    pub(super) fn written<'a>(&self, tree: &'a Tree, ino: Ino, inode: &Inode) -> Option<Written<'a>> {
        let (number, pool, store) = self.store_of(inode)?;
        let key = object::address(tree.tenant(), number, ino).key;
        Some(Written { tree, ino, pool, store, number, key })
    }

    /// Brings what was written to the store, unless it is there already. When nobody writes any more the file is
    /// settled, and its backing file goes. `None`: this takes longer than the pace allows.
    pub(super) fn bring(
        &self,
        written: &Written<'_>,
        settled: &mut Settled,
        pace: Pace,
    ) -> Result<Option<Inode>> {
        for _ in 0..UPLOADS_MAX {
            let inode = lookup::inode(&written.tree.view(), written.ino)?;
            if !inode.dirty {
                return Ok(Some(inode));
            }
            let still_open = self.leases.is_written(written.file());
            let Some(file) = written.open(false)? else {
                // Opened for writing, and nothing was written.
                return self.take_over(written, &recorded(&inode), still_open).map(Some);
            };
            let (facts, stamp) = look_at(&file)?;
            // What has no name is not uploaded: it stays where it is for those who have it open, and goes with the last.
            let nameless = inode.nlink == 0;
            if *settled == Some(stamp) || nameless {
                let inode = self.take_over(written, &facts, still_open || nameless)?;
                if !inode.dirty {
                    finish(written);
                    *settled = None;
                }
                return Ok(Some(inode));
            }
            let Some(contents) = self.contents_of(written, file, facts.size, pace)? else { return Ok(None) };
            let put = written.tree.write(|txn| contents::put(txn, written.ino, &facts, contents, true));
            put?;
            *settled = Some(stamp);
            if still_open {
                // Whoever goes on writing brings the rest; whoever has closed has brought what it wrote.
                return lookup::inode(&written.tree.view(), written.ino).map(Some);
            }
        }
        // It changes faster than it can be uploaded: somebody writes, and will close.
        lookup::inode(&written.tree.view(), written.ino).map(Some)
    }

    /// The bytes of a backing file on their way into the map, or in the store already.
    fn contents_of(
        &self,
        written: &Written<'_>,
        file: BackingFile,
        size: u64,
        pace: Pace,
    ) -> Result<Option<Contents>> {
        let number = written.number;
        if size <= SMALL_FILE_MAX as u64 {
            let bytes = read_all(&file, size as usize).map_err(io_refusal)?;
            return Ok(Some(Contents::Small(number, bytes)));
        }
        if pace == Pace::Quick {
            return Ok(None);
        }
        let file = file.as_fd().try_clone_to_owned().map_err(io_refusal)?;
        self.upload(written, file, size).map(|stored| Some(Contents::Stored(stored)))
    }

    fn upload(&self, written: &Written<'_>, file: OwnedFd, size: u64) -> Result<StoredObject> {
        let version = version().map_err(io_refusal)?;
        let object = object::stored_address(written.tree.tenant(), written.number, written.ino, version);
        written.tree.write(|txn| {
            contents::intend(txn, &object);
            Ok(())
        })?;
        let file = Arc::new(file);
        let stored = written.store.wait(async |s3| s3.upload(&object.key, file, size).await);
        let stored = stored.map_err(io_refusal)?;
        Ok(StoredObject { object, etag: stored.etag, size: stored.size })
    }

    /// Removes the backing files of a file that is not being written.
    pub(super) fn clear_leftover(&self, written: &Written<'_>) -> Result<()> {
        let inode = lookup::inode(&written.tree.view(), written.ino)?;
        if inode.dirty {
            return Ok(());
        }
        written.pool.files.remove_object(&written.unfinished()).map_err(io_refusal)?;
        written.clear()
    }

    fn take_over(&self, written: &Written<'_>, facts: &BackingFacts, still_open: bool) -> Result<Inode> {
        written.tree.write(|txn| object::settle(txn, written.ino, facts, still_open))
    }

    /// The object that has the bytes of a file as they are now: what is being written and what is small is brought there
    /// for it. `None`: the file does not belong to an object store, or is empty.
    pub(crate) fn object_of(&self, tree: &Tree, ino: Ino, inode: &Inode) -> Result<Option<StoredObject>> {
        let Some(written) = self.written(tree, ino, inode) else { return Ok(None) };
        let brought = self.staging.alone(written.file(), Pace::Slow, |settled| {
            let Some(inode) = self.bring(&written, settled, Pace::Slow)? else { return Ok(None) };
            match inode.layout {
                Layout::Stored(stored) => Ok(Some(stored)),
                Layout::Small { .. } if inode.size > 0 => self.move_out(&written, &inode).map(Some),
                _ => Ok(None),
            }
        });
        brought.unwrap_or(Err(Refusal::Busy.into()))
    }

    /// Moves the bytes of a small file out of the map into an object.
    fn move_out(&self, written: &Written<'_>, inode: &Inode) -> Result<StoredObject> {
        let bytes = contents::small(&written.tree.view(), written.ino)?;
        let file = rustix::fs::memfd_create("small", MemfdFlags::CLOEXEC);
        let file = file.map_err(|error| io_refusal(error.into()))?;
        write_all(&file, &bytes).map_err(io_refusal)?;
        let stored = self.upload(written, file, bytes.len() as u64)?;
        let (facts, contents) = (recorded(inode), Contents::Stored(stored.clone()));
        written.tree.write(|txn| contents::put(txn, written.ino, &facts, contents, inode.dirty))?;
        Ok(stored)
    }
}

/// Nobody needs the backing file any more.
fn finish(written: &Written<'_>) {
    if let Err(error) = written.clear() {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a file stays in the staging directory for now"
        );
    }
}

/// What the map says of a file that has no backing file.
fn recorded(inode: &Inode) -> BackingFacts {
    BackingFacts { size: inode.size, blocks: inode.blocks, mtime: inode.mtime }
}

/// What a backing file says about itself now.
pub(super) fn look_at(file: impl AsFd) -> Result<(BackingFacts, Stamp)> {
    let stat = rustix::fs::fstat(file).map_err(|error| io_refusal(error.into()))?;
    let facts = BackingFacts {
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        mtime: Timestamp::new(stat.st_mtime, stat.st_mtime_nsec as u32),
    };
    Ok((facts, Stamp::of(&stat)))
}

/// A number that no other version of any file has.
fn version() -> io::Result<u128> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u128::from_le_bytes(bytes))
}

fn write_all(file: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        done += rustix::io::retry_on_intr(|| rustix::io::pwrite(&file, &bytes[done..], done as u64))?;
    }
    Ok(())
}

/// The first `size` bytes of a file that may just have been cut: then as many as there are, and zeroes.
fn read_all(file: impl AsFd, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let mut done = 0;
    while done < size {
        match rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut bytes[done..], done as u64))? {
            0 => break,
            read => done += read,
        }
    }
    Ok(bytes)
}
