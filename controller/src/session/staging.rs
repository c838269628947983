//! Files of an object store while they are being written: each has a backing file in the pool's staging directory, as
//! every file of a posix pool has one, until its bytes are brought to the store as one new object.
//!
//! Of a large object only those parts are fetched that somebody uses, see [`super::partial`]; what is written from the
//! beginning on goes to the store while it is being written, see [`crate::pool::s3::NewObject`].
//!
//! **Guarantees**: bytes acknowledged to a writer are in the backing file, which outlives VMDS and controller; an
//! object is in the map only when all of it is in the store; what the map leads to is deleted only after something else
//! has taken its place.
//! **Assumptions**: the backing file of a volatile inode, where there is one, is the truth about its bytes; that of any
//! other is a leftover. One file is brought to or from the store by one thread at a time.

use std::io;
use std::ops::Range;
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
use address_map::record::{Inode, Layout, ObjectRef, StoredObject};
use address_map::sums;
use dashmap::DashMap;
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, Stat};

use super::partial::Partial;
use super::{DataPlane, io_refusal};
use crate::lease::File;
use crate::pool::s3::{Base, NewObject, S3Error, WHOLE_MAX, part_size, parts};
use crate::pool::{BackingFile, ObjectStore, Pool, set_mtime};

/// How long somebody waits for another one who is bringing the same file to or from the store, before saying so.
pub(super) const WORKING_AFTER: Duration = Duration::from_secs(20);
/// How often a file is uploaded anew because it changed meanwhile, before it is left for later.
const UPLOADS_MAX: usize = 3;
/// How often bytes are fetched again that are not those that were uploaded.
const FETCHES_MAX: usize = 3;
/// What is read at once to prove it, bytes: whole pieces.
const PROVE_AT_ONCE: u64 = 4 * sums::PIECE;

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

/// What the store has of a file that is being written.
#[derive(Default)]
pub(super) struct Progress {
    /// The backing file as it was when its bytes were last the same there.
    pub(super) settled: Option<Stamp>,
    /// The object that its parts go to while it is written.
    ahead: Option<Ahead>,
}

struct Ahead {
    object: ObjectRef,
    new: Arc<NewObject>,
}

/// The files that are being written.
#[derive(Default)]
pub(crate) struct Staging {
    files: DashMap<File, Arc<Mutex<Progress>>>,
}

impl Staging {
    /// Does something with a file that nobody else may do meanwhile. `None`: somebody else is at it, for longer than may
    /// be waited at this pace.
    pub(super) fn alone<T>(
        &self,
        file: File,
        pace: Pace,
        work: impl FnOnce(&mut Progress) -> T,
    ) -> Option<T> {
        let slot = self.files.entry(file).or_default().clone();
        let mut progress = match pace {
            Pace::Quick => slot.try_lock()?,
            Pace::Slow => slot.try_lock_for(WORKING_AFTER)?,
        };
        let done = work(&mut progress);
        let nothing_to_remember = progress.settled.is_none() && progress.ahead.is_none();
        drop(progress);
        if nothing_to_remember {
            // Whoever waits for its turn holds a count of it; two are the table's and ours.
            self.files.remove_if(&file, |_, slot| Arc::strong_count(slot) <= 2);
        }
        Some(done)
    }

    /// A file is gone for good: what was sent of it is given back.
    pub(super) fn forget(&self, file: File) {
        self.files.remove(&file);
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
            Layout::Stored(stored) if stored.size > WHOLE_MAX => self.make_partial(stored, mtime).map(Some),
            Layout::Stored(_) if pace == Pace::Quick => Ok(None),
            Layout::Stored(stored) => {
                let sums = contents::all_sums(&self.tree.view(), self.ino)?;
                self.make(mtime, |file| self.fetch(stored, &sums, 0..stored.size, file)).map(Some)
            }
            _ => self.make_empty(mtime).map(Some),
        }
    }

    /// Makes the backing file for an object of which nothing is fetched yet.
    fn make_partial(&self, stored: &StoredObject, mtime: Timestamp) -> Result<BackingFile> {
        self.make(mtime, |file| {
            rustix::fs::ftruncate(file, stored.size)?;
            Partial::new(part_size(stored.size), stored.size).note(file)
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
        let sums = contents::all_sums(&self.tree.view(), self.ino)?;
        let bring = || {
            let mtime = look_at(file).map_err(io::Error::other)?.0.mtime;
            for chunk in missing {
                self.fetch(stored, &sums, chunk.clone(), file)?;
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
        let needed = if size % partial.chunk() == 0 { 0..0 } else { size - 1..size };
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
    fn fetch(
        &self,
        stored: &StoredObject,
        sums: &[u64],
        range: Range<u64>,
        into: &BackingFile,
    ) -> io::Result<()> {
        let StoredObject { object, etag, size } = stored;
        let file = Arc::new(into.as_fd().try_clone_to_owned()?);
        for _ in 0..FETCHES_MAX {
            let (wanted, file) = (range.clone(), file.clone());
            self.store.wait(async |s3| s3.download(&object.key, etag, *size, wanted, file).await)?;
            if prove(into, sums, &range)? {
                return Ok(());
            }
            tracing::warn!(key = object.key, "the object store sent damaged bytes");
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the object store sends damaged bytes"))
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
        progress: &mut Progress,
        pace: Pace,
    ) -> Result<Option<Inode>> {
        for _ in 0..UPLOADS_MAX {
            let inode = lookup::inode(&written.tree.view(), written.ino)?;
            if !inode.dirty {
                return Ok(Some(inode));
            }
            let still_open = self.leases.is_written(written.file());
            let Some(file) = written.open(true)? else {
                // Opened for writing, and nothing was written.
                return self.take_over(written, &recorded(&inode), still_open).map(Some);
            };
            let partial = written.partial(&file)?;
            // What was only read is as it was, whatever its backing file looks like.
            let (sparse, same) = (partial.is_some(), partial.as_ref().is_some_and(|it| !it.is_changed()));
            // What has no name is not uploaded: it stays where it is for those who have it open, and goes with the last.
            let nameless = inode.nlink == 0;
            let (facts, stamp) = look_at(&file)?;
            if progress.settled == Some(stamp) || same || nameless {
                let facts = if same { BackingFacts { blocks: inode.blocks, ..facts } } else { facts };
                let inode = self.take_over(written, &facts, still_open || nameless)?;
                if !inode.dirty {
                    finish(written);
                    *progress = Progress::default();
                }
                return Ok(Some(inode));
            }
            let base = match partial {
                Some(_) if pace == Pace::Quick => return Ok(None),
                Some(partial) => self.base_of(written, &file, partial, &inode, facts.size)?,
                None => None,
            };
            // Bytes may have been fetched to it just now.
            let (mut facts, stamp) = look_at(&file)?;
            let Some(contents) = self.contents_of(written, file, facts.size, base, progress, pace)? else {
                return Ok(None);
            };
            if sparse {
                facts.blocks = facts.size.div_ceil(512);
            }
            let put = written.tree.write(|txn| contents::put(txn, written.ino, &facts, contents, true));
            put?;
            progress.settled = Some(stamp);
            if still_open {
                // Whoever goes on writing brings the rest; whoever has closed has brought what it wrote.
                return lookup::inode(&written.tree.view(), written.ino).map(Some);
            }
        }
        // It changes faster than it can be uploaded: somebody writes, and will close.
        lookup::inode(&written.tree.view(), written.ino).map(Some)
    }

    /// The object of which a backing file has changed a part, with what can be copied of it. Fetches what cannot.
    fn base_of(
        &self,
        written: &Written<'_>,
        file: &BackingFile,
        mut partial: Partial,
        inode: &Inode,
        size: u64,
    ) -> Result<Option<Base>> {
        let Layout::Stored(stored) = &inode.layout else { return Err(Refusal::Io.into()) };
        let copies = written.store.s3.capabilities().is_some_and(|can| can.multipart_copy);
        if !copies || size <= WHOLE_MAX {
            written.bring_near(file, &mut partial, inode, &(0..size))?;
            return Ok(None);
        }
        let base = Base {
            key: stored.object.key.clone(),
            etag: stored.etag.clone(),
            same: partial.same(),
            sums: contents::all_sums(&written.tree.view(), written.ino)?,
        };
        for part in parts(size).filter(|part| !base.has(part)) {
            written.bring_near(file, &mut partial, inode, &part)?;
        }
        Ok(Some(base))
    }

    /// The bytes of a backing file on their way into the map, or in the store already.
    fn contents_of(
        &self,
        written: &Written<'_>,
        file: BackingFile,
        size: u64,
        base: Option<Base>,
        progress: &mut Progress,
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
        let file = Arc::new(file.as_fd().try_clone_to_owned().map_err(io_refusal)?);
        if let Some(ahead) = progress.ahead.take() {
            match self.finish_object(written, &ahead, size, base.as_ref()) {
                Err(error) if !error.may_pass() => {
                    tracing::info!(error = &error as &dyn std::error::Error, "a file is uploaded once more");
                }
                finished => return finished.map(Some).map_err(|error| io_refusal(error.into())),
            }
        }
        let new = self.begin_object(written, file)?;
        let finished = self.finish_object(written, &new, size, base.as_ref());
        finished.map(Some).map_err(|error| io_refusal(error.into()))
    }

    /// Begins to make a new object of a file. Whatever becomes of it, it is not forgotten.
    fn begin_object(&self, written: &Written<'_>, file: Arc<OwnedFd>) -> Result<Ahead> {
        let version = version().map_err(io_refusal)?;
        let object = object::stored_address(written.tree.tenant(), written.number, written.ino, version);
        written.tree.write(|txn| {
            contents::intend(txn, &object);
            Ok(())
        })?;
        let new = written.store.s3.new_object(&object.key, file);
        Ok(Ahead { new: new.map_err(|error| io_refusal(error.into()))?, object })
    }

    fn finish_object(
        &self,
        written: &Written<'_>,
        new: &Ahead,
        size: u64,
        base: Option<&Base>,
    ) -> std::result::Result<Contents, S3Error> {
        let uploaded = written.store.runtime.wait_for(new.new.finish(size, base))?;
        let object = new.object.clone();
        Ok(Contents::Stored(StoredObject { object, etag: uploaded.stored.etag, size }, uploaded.sums))
    }

    /// So many bytes have been written in order to a file that is not closed: they may go ahead.
    pub(super) fn send_ahead(
        &self,
        written: &Written<'_>,
        progress: &mut Progress,
        inode: &Inode,
        end: u64,
    ) -> Result<()> {
        if !inode.dirty || inode.nlink == 0 {
            return Ok(());
        }
        let Some(file) = written.open(true)? else { return Ok(()) };
        if written.partial(&file)?.is_some() {
            return Ok(());
        }
        let there = look_at(&file)?.0.size;
        let ahead = match &progress.ahead {
            Some(ahead) => ahead,
            None => {
                let file = Arc::new(file.as_fd().try_clone_to_owned().map_err(io_refusal)?);
                progress.ahead.insert(self.begin_object(written, file)?)
            }
        };
        ahead.new.advance(written.store.runtime.handle(), end.min(there));
        Ok(())
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
        let brought = self.staging.alone(written.file(), Pace::Slow, |progress| {
            let Some(inode) = self.bring(&written, progress, Pace::Slow)? else { return Ok(None) };
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
        let new = self.begin_object(written, Arc::new(file))?;
        let finished = self.finish_object(written, &new, bytes.len() as u64, None);
        let contents = finished.map_err(|error| io_refusal(error.into()))?;
        let facts = recorded(inode);
        let moved =
            written.tree.write(|txn| contents::put(txn, written.ino, &facts, contents, inode.dirty))?;
        match moved.layout {
            Layout::Stored(stored) => Ok(stored),
            _ => Err(Refusal::Io.into()),
        }
    }
}

/// Whether bytes of a file are those that `sums` were made of.
fn prove(file: &BackingFile, sums: &[u64], range: &Range<u64>) -> io::Result<bool> {
    if sums.is_empty() {
        return Ok(true);
    }
    let mut buffer = vec![0; PROVE_AT_ONCE as usize];
    for start in range.clone().step_by(PROVE_AT_ONCE as usize) {
        let length = (range.end - start).min(PROVE_AT_ONCE) as usize;
        let read = read_at(file, &mut buffer[..length], start)?;
        if read < length || !sums::prove(sums, (start / sums::PIECE) as usize, &buffer[..length]) {
            return Ok(false);
        }
    }
    Ok(true)
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
