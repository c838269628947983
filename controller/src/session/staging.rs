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

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use address_map::attr::Timestamp;
use address_map::error::Result;
use address_map::namespace::object::BackingFacts;
use address_map::record::ObjectRef;
use dashmap::DashMap;
use parking_lot::Mutex;
use rustix::fs::Stat;
use rustix::io::Errno;

use super::io_refusal;
use crate::lease::File;
use crate::pool::s3::NewObject;

/// How long somebody waits for another one who is bringing the same file to or from the store, before saying so.
pub(super) const WORKING_AFTER: Duration = Duration::from_secs(20);

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
    pub(super) ahead: Option<Ahead>,
}

/// An object that is being made.
pub(super) struct Ahead {
    pub(super) object: ObjectRef,
    pub(super) new: Arc<NewObject>,
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

/// Waits for the changes of a file that have begun: the kernel stamps one before it has taken all of its bytes. From then
/// on everything can be read that a [`Stamp`] from before tells of.
pub(super) fn await_changes(file: impl AsFd) -> Result<()> {
    // Takes the lock under which files are written. No file has it, and nothing is changed.
    match rustix::fs::fremovexattr(file, "trusted.vmds.none") {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(error) => Err(io_refusal(error.into())),
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn every_change_is_another_stamp_and_waiting_for_changes_is_none() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"1", 0).unwrap();
        for _ in 0..100 {
            let before = look_at(&file).unwrap().1;
            await_changes(&file).unwrap();
            assert_eq!(look_at(&file).unwrap().1, before);
            file.write_all_at(b"2", 0).unwrap();
            assert_ne!(look_at(&file).unwrap().1, before);
        }
    }
}
