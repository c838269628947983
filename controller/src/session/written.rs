//! The backing file of a file of an object store: made, filled from the store as far as it is needed, cut, removed.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use address_map::attr::Timestamp;
use address_map::error::{Refusal, Result};
use address_map::ids::{Ino, PoolId};
use address_map::map::Tree;
use address_map::namespace::contents;
use address_map::record::{Inode, Layout, StoredObject};
use address_map::sums;

use rustix::rand::GetRandomFlags;

use super::io_refusal;
use super::partial::Partial;
use super::staging::{Pace, look_at};
use crate::audit;
use crate::lease::File;
use crate::pool::s3::{WHOLE_MAX, part_size};
use crate::pool::{BackingFile, ObjectStore, Pool, set_mtime};

/// How often bytes are fetched again that are not those that were uploaded.
pub(super) const FETCHES_MAX: usize = 3;
/// What is read at once to prove it, bytes: whole pieces.
const PROVE_AT_ONCE: u64 = 4 * sums::PIECE;

/// A file of an object store: what is needed to move its bytes.
pub(super) struct Written<'a> {
    pub(super) tree: &'a Tree,
    pub(super) ino: Ino,
    pub(super) pool: Arc<Pool>,
    pub(super) store: ObjectStore,
    pub(super) number: PoolId,
    /// Key of the backing file.
    pub(super) key: String,
}

impl Written<'_> {
    /// The file, for tables.
    pub(super) fn file(&self) -> File {
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

    /// An object of it, for the log of leases.
    pub(super) fn audited(&self, stored: &StoredObject) -> audit::Object {
        let settings = self.store.s3.settings();
        audit::Object {
            bucket: settings.bucket.clone(),
            key: settings.full_key(&stored.object.key),
            etag: stored.etag.clone(),
            size: stored.size,
        }
    }

    /// Its bytes are in another object now: what the disk cache has is of no use.
    pub(super) fn replaced(&self) {
        if let Some(cache) = &self.store.cache {
            cache.remove(self.file());
        }
    }

    /// The name of a backing file that is not complete.
    pub(super) fn unfinished(&self) -> String {
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
            Layout::Stored(stored) if stored.size > WHOLE_MAX => self.make_partial(stored, mtime).map(Some),
            Layout::Stored(_) if pace == Pace::Quick => Ok(None),
            Layout::Stored(stored) => {
                self.make(mtime, |file| self.fetch(stored, 0..stored.size, file)).map(Some)
            }
            _ => self.make_empty(mtime).map(Some),
        }
    }

    /// Makes the backing file for an object of which nothing is fetched yet.
    fn make_partial(&self, stored: &StoredObject, mtime: Timestamp) -> Result<BackingFile> {
        self.make(mtime, |file| {
            let mut tag = [0; 8];
            rustix::rand::getrandom(&mut tag, GetRandomFlags::empty())?;
            rustix::fs::ftruncate(file, stored.size)?;
            Partial::new(u64::from_le_bytes(tag), part_size(stored.size), stored.size).note(file)
        })
    }

    /// What of a backing file is missing; `None`: nothing.
    pub(super) fn partial(&self, file: &BackingFile) -> Result<Option<Partial>> {
        let look = || {
            let Some(mut partial) = Partial::of(file)? else { return Ok(None) };
            let size = rustix::fs::fstat(file)?.st_size as u64;
            if size < partial.end() && partial.would_change(&(size..u64::MAX)) {
                // Somebody has cut the file, and was lost before that was noted.
                partial.change(&(size..u64::MAX));
                partial.note(file)?;
            }
            Ok(Some(partial))
        };
        look().map_err(io_refusal)
    }

    /// Fetches what is missing of these bytes. Its time of last change stays what it is; a change that is made at this
    /// very moment may get the time of the one before.
    pub(super) fn bring_near(
        &self,
        file: &BackingFile,
        partial: &mut Partial,
        inode: &Inode,
        range: &Range<u64>,
    ) -> Result<()> {
        let missing = partial.missing(range);
        if missing.is_empty() {
            return Ok(());
        }
        let Layout::Stored(stored) = &inode.layout else { return Err(Refusal::Io.into()) };
        let bring = || {
            let mtime = look_at(file).map_err(io::Error::other)?.0.mtime;
            for chunk in missing {
                self.fetch(stored, chunk.clone(), file)?;
                rustix::fs::fdatasync(file)?;
                partial.arrived(&chunk);
                partial.note(file)?;
            }
            set_mtime(file, mtime)
        };
        bring().map_err(io_refusal)
    }

    /// Has what a change of size cannot do without; `false`: that takes longer than the pace allows.
    pub(super) fn prepare_cut(
        &self,
        file: &BackingFile,
        inode: &Inode,
        size: u64,
        pace: Pace,
    ) -> Result<bool> {
        let Some(mut partial) = self.partial(file)? else { return Ok(true) };
        // What stays of the chunk that is cut in two would be missed.
        let needed = if size.is_multiple_of(partial.chunk()) { 0..0 } else { size - 1..size };
        if !partial.missing(&needed).is_empty() && pace == Pace::Quick {
            return Ok(false);
        }
        self.bring_near(file, &mut partial, inode, &needed).map(|()| true)
    }

    /// Gives a backing file another size. From where it was cut on nothing is as in the object any more.
    pub(super) fn resize(&self, file: &BackingFile, size: Option<u64>) -> Result<()> {
        let Some(size) = size else { return Ok(()) };
        let resize = || {
            let before = rustix::fs::fstat(file)?.st_size as u64;
            // Cut first: who is lost between the two is noticed by what the file lacks.
            rustix::fs::ftruncate(file, size)?;
            let cut = size.min(before)..u64::MAX;
            match Partial::of(file)? {
                Some(mut partial) if size != before && partial.would_change(&cut) => {
                    partial.change(&cut);
                    partial.note(file)
                }
                _ => Ok(()),
            }
        };
        resize().map_err(io_refusal)
    }

    /// Copies bytes of an object to the same place of a file, and proves that they are those that were uploaded.
    fn fetch(&self, stored: &StoredObject, range: Range<u64>, into: &BackingFile) -> io::Result<()> {
        let StoredObject { object, etag, size } = stored;
        let sums = contents::sums_of(&self.tree.view(), self.ino, &range).map_err(io::Error::other)?;
        if self.copy_cached(stored, &range, into) && prove(into, &sums, range.start, &range)? {
            return Ok(());
        }
        let file = Arc::new(into.as_fd().try_clone_to_owned()?);
        for _ in 0..FETCHES_MAX {
            let (wanted, file) = (range.clone(), file.clone());
            self.store.wait(async |s3| s3.download(&object.key, etag, *size, wanted, file).await)?;
            if prove(into, &sums, range.start, &range)? {
                return Ok(());
            }
            tracing::warn!(key = object.key, "the object store sent damaged bytes");
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the object store sends damaged bytes"))
    }

    /// Takes bytes from the disk cache, if it has them. What it cannot give comes from the store.
    fn copy_cached(&self, stored: &StoredObject, range: &Range<u64>, into: &BackingFile) -> bool {
        let Some(cache) = &self.store.cache else { return false };
        cache.copy(self.file(), stored, range, into).unwrap_or_else(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the disk cache cannot be used; bytes are fetched");
            false
        })
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

/// Whether bytes of a file are those that `sums` were made of, the first of which is about what begins at `first`.
pub(super) fn prove(file: impl AsFd, sums: &[u64], first: u64, range: &Range<u64>) -> io::Result<bool> {
    if sums.is_empty() {
        return Ok(true);
    }
    let mut buffer = vec![0; PROVE_AT_ONCE as usize];
    for start in range.clone().step_by(PROVE_AT_ONCE as usize) {
        let length = (range.end - start).min(PROVE_AT_ONCE) as usize;
        let read = read_at(&file, &mut buffer[..length], start)?;
        if read < length || !sums::prove(sums, ((start - first) / sums::PIECE) as usize, &buffer[..length]) {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn write_all(file: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        done += rustix::io::retry_on_intr(|| rustix::io::pwrite(&file, &bytes[done..], done as u64))?;
    }
    Ok(())
}

/// The first `size` bytes of a file that may just have been cut: then as many as there are, and zeroes.
pub(super) fn read_all(file: impl AsFd, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    read_at(file, &mut bytes, 0)?;
    Ok(bytes)
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: impl AsFd, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        let rest = &mut into[done..];
        match rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut *rest, at + done as u64))? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}
