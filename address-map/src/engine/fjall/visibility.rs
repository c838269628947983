//! Keeps snapshots from showing half a commit.
//!
//! fjall numbers commits, and a snapshot shows all numbers below its own. But when its worker installs a table it
//! declares everything numbered so far visible, also a commit that another thread is still applying: a snapshot taken
//! then shows the half that is there, and more of it later. (lsm-tree 3.1.10, `SuperVersions::upgrade_version`; the
//! conformance suite meets it within seconds when [`Visibility::settle`] does nothing.)
//!
//! So each commit leaves a note, while it runs, of the lowest number it may get, and a snapshot that reaches above
//! such a note waits for that commit before it is read. Commits that begin later have larger numbers than the
//! snapshot; nobody waits for them.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

/// The note when no commit runs.
const NONE: u64 = u64::MAX;
/// How often a snapshot looks again before its thread goes to sleep: most commits are through within this.
const SPINS: usize = 200;

/// The commits that are running on one database.
pub(super) struct Visibility {
    /// Lowest number that a running commit may get.
    lowest: AtomicU64,
    /// The same of each running commit.
    running: Mutex<Vec<u64>>,
    ended: Condvar,
}

/// A running commit; ended when dropped.
pub(super) struct Running<'a> {
    visibility: &'a Visibility,
    note: u64,
}

impl Default for Visibility {
    fn default() -> Self {
        Self { lowest: AtomicU64::new(NONE), running: Mutex::default(), ended: Condvar::new() }
    }
}

impl Visibility {
    /// A commit begins; `next` tells the next number that fjall will give out.
    pub(super) fn begin(&self, next: impl FnOnce() -> u64) -> Running<'_> {
        let mut running = self.running.lock();
        let note = next();
        running.push(note);
        self.note_lowest(&running);
        Running { visibility: self, note }
    }

    /// Waits until a snapshot that shows all numbers below `instant` shows whole commits only.
    pub(super) fn settle(&self, instant: u64) {
        for _ in 0..SPINS {
            if instant <= self.lowest.load(Ordering::SeqCst) {
                return;
            }
            std::hint::spin_loop();
        }
        let mut running = self.running.lock();
        self.ended.wait_while(&mut running, |running| running.iter().any(|note| *note < instant));
    }

    fn note_lowest(&self, running: &[u64]) {
        self.lowest.store(running.iter().copied().min().unwrap_or(NONE), Ordering::SeqCst);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.visibility.running.lock();
        if let Some(index) = running.iter().position(|note| *note == self.note) {
            running.swap_remove(index);
        }
        self.visibility.note_lowest(&running);
        self.visibility.ended.notify_all();
    }
}
