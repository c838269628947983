//! Bringing what was written to an object store: as one new object, or into the map when it is small.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use address_map::error::{Refusal, Result};
use address_map::ids::{Ino, PoolId};
use address_map::limits::SMALL_FILE_MAX;
use address_map::map::Tree;
use address_map::namespace::contents::{self, Contents};
use address_map::namespace::lookup;
use address_map::namespace::object::{self, BackingFacts};
use address_map::record::{Inode, Layout, StoredObject};
use rustix::fs::MemfdFlags;

use super::partial::Partial;
use super::staging::{Ahead, Pace, Progress, await_changes, look_at};
use super::written::{Written, read_all, write_all};
use super::{DataPlane, io_refusal};
use crate::pool::s3::{Base, S3Error, WHOLE_MAX, parts};
use crate::pool::{BackingFile, ObjectStore, Pool};

/// How often a file is uploaded anew because it changed meanwhile, before it is left for later.
const UPLOADS_MAX: usize = 3;

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
            await_changes(&file)?;
            let Some(contents) = self.contents_of(written, file, facts.size, base, progress, pace)? else {
                return Ok(None);
            };
            if sparse {
                facts.blocks = facts.size.div_ceil(512);
            }
            let put = written.tree.write(|txn| contents::put(txn, written.ino, &facts, contents, true));
            put?;
            written.replaced();
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
        let copies = written.store.s3.capabilities().is_some_and(|can| can.multipart_copy);
        let stored = match &inode.layout {
            Layout::Stored(stored) if copies && size > WHOLE_MAX => stored,
            // One that was cut to a small file meanwhile lacks nothing and has nothing to copy from.
            _ => {
                written.bring_near(file, &mut partial, inode, &(0..size))?;
                return Ok(None);
            }
        };
        let base = Base {
            key: stored.object.key.clone(),
            etag: stored.etag.clone(),
            same: partial.same(),
            sums: contents::sums_of(&written.tree.view(), written.ino, &(0..stored.size))?,
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

/// A number that no other version of any file has.
fn version() -> io::Result<u128> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u128::from_le_bytes(bytes))
}
