//! Which files the disk cache has, how much each takes, and which was used least recently.

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use crate::lease::File;

/// What is known of a file.
#[derive(Default)]
struct Entry {
    /// When it was used last.
    used: Age,
    /// What it takes, or is about to take, bytes.
    bytes: u64,
    /// The chunk that somebody who reads in order asks for next.
    next: usize,
}

/// A time, nanoseconds since 1970: it outlives the process.
pub(super) type Age = u64;

/// This moment.
pub(super) fn now() -> Age {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// See the module.
#[derive(Default)]
pub(super) struct Index {
    files: HashMap<File, Entry>,
    by_age: BTreeSet<(Age, File)>,
    bytes: u64,
}

impl Index {
    /// What all files take together, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many there are.
    pub(super) fn files(&self) -> usize {
        self.files.len()
    }

    /// A file that was found; one that is known already stays as it is.
    pub(super) fn found(&mut self, file: File, bytes: u64, used: Age) {
        if self.has(file) {
            return;
        }
        self.files.insert(file, Entry { used, bytes, next: 0 });
        self.by_age.insert((used, file));
        self.bytes += bytes;
    }

    /// A file is used now.
    pub(super) fn used(&mut self, file: File) {
        let Some(entry) = self.files.get_mut(&file) else { return };
        self.by_age.remove(&(entry.used, file));
        entry.used = now();
        self.by_age.insert((entry.used, file));
    }

    /// Whether a file is there.
    pub(super) fn has(&self, file: File) -> bool {
        self.files.contains_key(&file)
    }

    /// A file takes more, unless all together would take more than `most`. One that has gone meanwhile takes nothing any
    /// more.
    pub(super) fn grow(&mut self, file: File, bytes: u64, most: u64) -> bool {
        let Some(entry) = self.files.get_mut(&file) else { return true };
        if self.bytes.saturating_add(bytes) > most {
            return false;
        }
        entry.bytes += bytes;
        self.bytes += bytes;
        true
    }

    /// A file takes less.
    pub(super) fn shrink(&mut self, file: File, bytes: u64) {
        let Some(entry) = self.files.get_mut(&file) else { return };
        let less = bytes.min(entry.bytes);
        entry.bytes -= less;
        self.bytes -= less;
    }

    /// A file is gone.
    pub(super) fn remove(&mut self, file: File) {
        let Some(entry) = self.files.remove(&file) else { return };
        self.by_age.remove(&(entry.used, file));
        self.bytes -= entry.bytes;
    }

    /// The file that was used least recently, of those that may go.
    pub(super) fn oldest(&self, may_go: impl Fn(File) -> bool) -> Option<File> {
        self.by_age.iter().map(|(_, file)| *file).find(|file| may_go(*file))
    }

    /// Somebody asks for a chunk; answers whether that is the one that was to be expected of who reads in order. Who does
    /// may ask for one several times: only the first counts. Nor does the beginning: many look at that and at nothing else.
    pub(super) fn asked(&mut self, file: File, chunk: usize) -> bool {
        let Some(entry) = self.files.get_mut(&file) else { return false };
        let in_order = chunk > 0 && entry.next == chunk;
        entry.next = chunk + 1;
        in_order
    }

    /// Every file there is.
    pub(super) fn all(&self) -> Vec<File> {
        self.files.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use address_map::ids::{Ino, TenantId};

    use super::*;

    const A: File = (TenantId(1), Ino(1));
    const B: File = (TenantId(1), Ino(2));

    #[test]
    fn the_least_recently_used_is_the_oldest_that_may_go() {
        let mut index = Index::default();
        index.found(A, 10, 5);
        index.found(B, 20, 4);
        index.found(B, 99, 99);
        assert_eq!((index.bytes(), index.files()), (30, 2));
        assert_eq!(index.oldest(|_| true), Some(B));
        assert_eq!(index.oldest(|file| file != B), Some(A));
        index.used(B);
        assert_eq!(index.oldest(|_| true), Some(A));
        index.remove(A);
        index.remove(A);
        assert_eq!((index.bytes(), index.oldest(|file| file != B)), (20, None));
    }

    #[test]
    fn nothing_grows_beyond_the_bound() {
        let mut index = Index::default();
        assert!(index.grow(A, 60, 100) && index.bytes() == 0, "there is no such file");
        index.found(A, 0, 1);
        index.found(B, 0, 2);
        assert!(index.grow(A, 60, 100) && !index.grow(B, 41, 100) && index.grow(B, 40, 100));
        index.shrink(A, 10);
        assert!(index.grow(B, 10, 100) && !index.grow(B, 1, 100));
        index.shrink(A, u64::MAX);
        assert_eq!(index.bytes(), 50);
    }

    #[test]
    fn who_reads_in_order_is_recognised() {
        let mut index = Index::default();
        index.found(A, 0, 1);
        assert!(!index.asked(A, 0) && index.asked(A, 1) && !index.asked(A, 1) && index.asked(A, 2));
        assert!(!index.asked(A, 9) && index.asked(A, 10) && !index.asked(B, 3));
    }
}
