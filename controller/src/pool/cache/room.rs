//! The bound of the disk cache: what was used least recently goes, so that something else finds room.

use std::io;

use address_map::record::StoredObject;
use rustix::rand::GetRandomFlags;

use super::{DiskCache, Note, Readable, index, key_of};
use crate::lease::File;

/// What counts for a file beside the bytes of its object: its inode, its note, and what its last block has too much.
pub(super) const OVERHEAD: u64 = 8 << 10;

impl DiskCache {
    /// Makes a file for this object, of which nothing is there yet. `None`: such an object is not cached, or nothing can go
    /// for it. `is_leased`: these files stay.
    ///
    /// # Errors
    /// The directory cannot be used, or is full.
    pub fn make(
        &self,
        file: File,
        stored: &StoredObject,
        is_leased: &dyn Fn(File) -> bool,
    ) -> io::Result<Option<Readable>> {
        let mut tag = [0; 8];
        rustix::rand::getrandom(&mut tag, GetRandomFlags::empty())?;
        let Some(note) = Note::new(u64::from_le_bytes(tag), stored) else { return Ok(None) };
        self.remove(file);
        self.index.lock().found(file, 0, index::now());
        if !self.reserve(file, OVERHEAD, is_leased) {
            self.index.lock().remove(file);
            self.counts.no_room();
            return Ok(None);
        }
        let made = self.alone(file, |_| {
            let key = key_of(file);
            self.files.remove_object(&key)?;
            let made = self.files.open_object(&key, true, true)?;
            rustix::fs::ftruncate(&made, stored.size)?;
            // Last: what has no note is not taken for anything.
            note.write(&made)?;
            self.files.open_object(&key, false, false)
        });
        let descriptor = made.inspect_err(|_| self.remove(file))?;
        self.tell();
        Ok(Some(Readable { descriptor, tag: note.tag, chunk: note.chunk }))
    }

    /// Has so many bytes count as those of a file, for which the least recently used may have to go.
    pub(super) fn reserve(&self, file: File, bytes: u64, is_leased: &dyn Fn(File) -> bool) -> bool {
        while !self.index.lock().grow(file, bytes, self.settings.bytes) {
            if !self.evict_of(|other| other != file && !is_leased(other)) {
                return false;
            }
        }
        true
    }

    /// Removes the file that was used least recently; `false`: there is none that may go.
    pub(super) fn evict(&self, is_leased: &dyn Fn(File) -> bool) -> bool {
        self.evict_of(|file| !is_leased(file))
    }

    /// Has it take no more than the bound, which may have been another one before.
    pub fn keep_bound(&self, is_leased: &dyn Fn(File) -> bool) {
        while self.usage().bytes > self.settings.bytes && self.evict(is_leased) {}
    }

    fn evict_of(&self, may_go: impl Fn(File) -> bool) -> bool {
        let Some(oldest) = self.index.lock().oldest(&may_go) else { return false };
        let gone = self.alone(oldest, |_| {
            let is_there = self.index.lock().has(oldest);
            match is_there && may_go(oldest) {
                true => self.drop_file(oldest).map(|()| self.counts.evicted()),
                // It was leased at this moment, or has just gone.
                false => Ok(()),
            }
        });
        let failed = |error: &io::Error| {
            tracing::warn!(error = error as &dyn std::error::Error, "cannot remove a file of the disk cache");
        };
        gone.inspect_err(failed).is_ok()
    }
}
