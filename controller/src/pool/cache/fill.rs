//! Bringing chunks of an object to its file: each once, whoever asks for it; proven; only while there is room.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use address_map::record::StoredObject;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{DiskCache, Fetched, FillError, Note, Proof, Slot, Source, is_full};
use crate::lease::File;
use crate::pool::BackingFile;

/// How long somebody waits for a chunk that another one is bringing, before saying so.
const BRINGING_AFTER: Duration = Duration::from_secs(15);
/// How often the least recently used goes because the file system is full before the bound is reached.
const ROOM_TRIES: usize = 8;

impl DiskCache {
    /// The chunks that a range touches, and whether that is how somebody reads who reads in order.
    ///
    /// # Errors
    /// [`FillError::Gone`].
    pub fn touched(
        &self,
        file: File,
        stored: &StoredObject,
        tag: u64,
        range: &Range<u64>,
    ) -> Result<(Range<usize>, bool), FillError> {
        let opened = self.alone(file, |_| self.open_noted(file, stored, false));
        let (_, note) = noted(opened, tag)?;
        let touched = note.touched(range);
        let in_order = self.index.lock().asked(file, touched.start);
        Ok((touched, in_order))
    }

    /// The first chunks from `from` on that are neither there nor on their way, of the next `ahead`.
    pub fn lacks(
        &self,
        file: File,
        stored: &StoredObject,
        tag: u64,
        from: usize,
        ahead: usize,
    ) -> Vec<usize> {
        let lacking = self.alone(file, |loading| {
            let (_, note) = noted(self.open_noted(file, stored, false), tag).ok()?;
            let end = from.saturating_add(ahead).min(note.chunks());
            Some((from..end).filter(|index| !note.has(*index) && !loading.contains(index)).collect())
        });
        lacking.unwrap_or_default()
    }

    /// Has a chunk there, and proven. `asked`: somebody waits for it.
    ///
    /// # Errors
    /// See [`FillError`].
    pub fn fill(
        &self,
        file: File,
        stored: &StoredObject,
        (tag, index): (u64, usize),
        asked: bool,
        source: &dyn Source,
    ) -> Result<(), FillError> {
        let slot = self.slots.entry(file).or_default().clone();
        let filled = self.fill_in(&slot, file, stored, (tag, index), asked, source);
        self.put_back(file);
        filled
    }

    fn fill_in(
        &self,
        slot: &Slot,
        file: File,
        stored: &StoredObject,
        (tag, index): (u64, usize),
        asked: bool,
        source: &dyn Source,
    ) -> Result<(), FillError> {
        let deadline = Instant::now() + BRINGING_AFTER;
        let mut loading = slot.loading.lock();
        loop {
            let (opened, note) = noted(self.open_noted(file, stored, true), tag)?;
            if index >= note.chunks() {
                return Err(FillError::Gone);
            }
            if !note.has(index) && loading.contains(&index) {
                if !asked {
                    return Ok(());
                }
                if slot.fewer.wait_until(&mut loading, deadline).timed_out() {
                    return Err(FillError::UnderWay);
                }
                continue;
            }
            if !note.has(index) {
                loading.insert(index);
                drop(loading);
                let at = Loading { slot, index };
                if asked {
                    self.counts.missed();
                }
                return self.load(&at, file, opened, &note, source);
            }
            if !asked {
                return Ok(());
            }
            drop(loading);
            if source.proves(&opened, note.bytes(index)).map_err(FillError::Refused)? {
                self.counts.hit();
                return Ok(());
            }
            self.damaged(file, stored, tag);
            return Err(FillError::Gone);
        }
    }

    /// Removes a file in which a chunk is not what it was: of the rest nobody knows either. Who reads it is given another one.
    fn damaged(&self, file: File, stored: &StoredObject, tag: u64) {
        let removed = self.alone(file, |_| match noted(self.open_noted(file, stored, false), tag) {
            Ok(_) => self.drop_file(file).map(|()| true),
            // Somebody else has seen it, too.
            Err(_) => Ok(false),
        });
        if !matches!(removed, Ok(false)) {
            self.counts.damaged();
            let directory = self.directory().display();
            tracing::warn!(%directory, "a file of the disk cache is damaged; its object is fetched again");
        }
        if let Err(error) = removed {
            tracing::warn!(error = &error as &dyn std::error::Error, "it cannot be removed");
        }
    }

    /// Brings a chunk that nobody else brings.
    fn load(
        &self,
        at: &Loading<'_>,
        file: File,
        opened: BackingFile,
        note: &Note,
        source: &dyn Source,
    ) -> Result<(), FillError> {
        let bytes = note.bytes(at.index);
        let length = bytes.end - bytes.start;
        if !self.reserve(file, length, &|other| source.is_leased(other)) {
            self.counts.no_room();
            return Err(FillError::NoRoom);
        }
        let loaded = self.load_into(at, &opened, bytes.clone(), source);
        if loaded.is_err() {
            self.index.lock().shrink(file, length);
            // What was allocated for it takes room no more; if that fails, it does until the file goes.
            let _ = rustix::fs::fallocate(
                &opened,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                bytes.start,
                length,
            );
        }
        self.tell();
        loaded
    }

    fn load_into(
        &self,
        at: &Loading<'_>,
        opened: &BackingFile,
        bytes: Range<u64>,
        source: &dyn Source,
    ) -> Result<(), FillError> {
        let unusable = |error: io::Error| {
            self.counts.no_room();
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                directory = %self.directory().display(),
                "the disk cache takes nothing; bytes are read from the store"
            );
            FillError::NoRoom
        };
        self.allocate(opened, &bytes, source).map_err(unusable)?;
        let into = opened.as_fd().try_clone_to_owned().map_err(unusable)?;
        match source.fetch(bytes, Arc::new(into)) {
            Ok(Proof::Given) => {}
            // Nobody could tell after a power loss that they have not arrived.
            Ok(Proof::None) => rustix::fs::fdatasync(opened).map_err(|error| unusable(error.into()))?,
            Err(Fetched::Not(error)) => return Err(unusable(error)),
            Err(Fetched::Refused(error)) => return Err(FillError::Refused(error)),
        }
        let noted = || {
            let _alone = at.slot.loading.lock();
            let mut note = Note::of(opened)?.ok_or(Errno::NODATA)?;
            note.set(at.index, true);
            note.write(opened)
        };
        noted().map_err(|error| unusable(error.into()))
    }

    /// Has the file system promise room, and the least recently used go if it cannot.
    fn allocate(&self, opened: &BackingFile, bytes: &Range<u64>, source: &dyn Source) -> io::Result<()> {
        let is_leased = |file| source.is_leased(file);
        let mut tries = 0;
        loop {
            let length = bytes.end - bytes.start;
            let allocated = rustix::fs::fallocate(opened, FallocateFlags::KEEP_SIZE, bytes.start, length);
            match allocated.map_err(io::Error::from) {
                // It cannot promise; writing tells.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => return Ok(()),
                Err(error) if is_full(&error) && tries < ROOM_TRIES && self.evict(&is_leased) => tries += 1,
                allocated => return allocated,
            }
        }
    }
}

/// A chunk that is being brought; when this is dropped, it is not any more.
struct Loading<'a> {
    slot: &'a Slot,
    index: usize,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.slot.loading.lock().remove(&self.index);
        self.slot.fewer.notify_all();
    }
}

/// The file that was meant, if it is still there.
fn noted(
    opened: io::Result<Option<(BackingFile, Note)>>,
    tag: u64,
) -> Result<(BackingFile, Note), FillError> {
    match opened {
        Ok(Some((opened, note))) if note.tag == tag => Ok((opened, note)),
        Ok(_) => Err(FillError::Gone),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the disk cache cannot be used; bytes are read from the store");
            Err(FillError::NoRoom)
        }
    }
}
