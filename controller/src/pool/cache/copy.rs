//! Taking bytes out of the cache for a file that is about to be written: they need not be fetched.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;

use address_map::record::StoredObject;
use rustix::io::retry_on_intr;

use super::DiskCache;
use crate::lease::File;

/// What is copied at once, bytes.
const COPY_AT_ONCE: u64 = 1 << 20;

impl DiskCache {
    /// Copies bytes of an object to the same place of another file; `false`: not all of them are there. Whoever needs
    /// them proves them.
    ///
    /// # Errors
    /// The directory cannot be used, or the other file.
    pub fn copy(
        &self,
        file: File,
        stored: &StoredObject,
        bytes: &Range<u64>,
        into: impl AsFd,
    ) -> io::Result<bool> {
        let opened = self.alone(file, |_| self.open_noted(file, stored, false))?;
        let there = opened.filter(|(_, note)| note.touched(bytes).all(|index| note.has(index)));
        let Some((from, _)) = there else { return Ok(false) };
        let mut buffer = vec![0; COPY_AT_ONCE.min(bytes.end - bytes.start) as usize];
        let mut at = bytes.start;
        while at < bytes.end {
            let most = (bytes.end - at).min(COPY_AT_ONCE) as usize;
            let read = retry_on_intr(|| rustix::io::pread(&from, &mut buffer[..most], at))?;
            if read == 0 {
                return Ok(false);
            }
            let mut done = 0;
            while done < read {
                done += retry_on_intr(|| rustix::io::pwrite(&into, &buffer[done..read], at + done as u64))?;
            }
            at += read as u64;
        }
        Ok(true)
    }
}
