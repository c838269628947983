//! Syncs the journal without stopping the commits.
//!
//! fjall syncs its journal under the lock that every commit takes, so commits would wait for the disk and nobody could
//! join the next sync. But a sync works through any descriptor of a file, and so it is done through one of our own.
//!
//! What this relies on, all of it in fjall 3.1.13 (`journal/writer.rs`, `journal/mod.rs`): journals are the files
//! `<number>.jnl` in the database's directory; commits go to the one with the largest number, and have been written to
//! it when they return; a journal is synced before the next one is made, and the directory before the next one is
//! used. So everything committed before a sync begins is in the journal that is newest then, or synced already.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// The journals of one database.
pub(super) struct Journal {
    directory: PathBuf,
    newest: Mutex<Option<(u64, File)>>,
    failed: AtomicBool,
}

impl Journal {
    /// The journals of the database in `directory`.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, newest: Mutex::default(), failed: AtomicBool::new(false) }
    }

    /// Whether a sync has failed: what could not be written may be lost, and the kernel tells so only once.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Makes everything committed before this call survive a power loss.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.try_sync().inspect_err(|_| self.failed.store(true, Ordering::SeqCst))
    }

    fn try_sync(&self) -> io::Result<()> {
        let mut newest = self.newest.lock();
        let number = self.newest_number()?;
        if newest.as_ref().is_none_or(|(known, _)| *known != number) {
            // The one before is synced already, unless making the new one has failed half-way.
            if let Some((_, before)) = newest.take() {
                before.sync_data()?;
            }
            match File::open(journal_path(&self.directory, number)) {
                // Kept open, so that an error between two syncs is told to this descriptor.
                Ok(file) => *newest = Some((number, file)),
                // Followed by another, and deleted since everything in it is in tables.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        // The size of a file is metadata that fdatasync writes where it is needed to find the data; times are not.
        newest.as_ref().map_or(Ok(()), |(_, file)| file.sync_data())
    }

    fn newest_number(&self) -> io::Result<u64> {
        let newest = numbers(&self.directory)?.into_iter().max();
        newest.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the database has no journal"))
    }
}

/// The numbers of the journals of the database in `directory`, in no order.
pub(super) fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".jnl")?.parse().ok();
    fs::read_dir(directory)?.filter_map(|entry| entry.map(number).transpose()).collect()
}

/// Where the journal of this number is.
pub(super) fn journal_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number}.jnl"))
}
