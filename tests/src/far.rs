//! A directory on a file system that looks like one of another machine and stops answering when told to: for pools
//! that hang for real.

mod serve;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use parking_lot::{Condvar, Mutex};
use tempfile::TempDir;

use crate::mounts::detach_all_under;
use serve::Far;

/// Requests that can hang beside each other; more wait in the kernel.
const THREADS: usize = 24;
/// After this long it answers again by itself, so that a test that waits for it in vain ends.
const HANGS_AT_MOST: Duration = Duration::from_secs(240);

/// What does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangs {
    /// Reading, writing and syncing of bytes.
    Bytes,
    /// Anything at all.
    Everything,
}

#[derive(Default)]
pub(crate) struct Gate {
    hangs: Mutex<Option<Hangs>>,
    changed: Condvar,
}

impl Gate {
    /// Waits until requests of this kind are answered.
    fn pass(&self, bytes: bool) {
        let shut = |hangs: &mut Option<Hangs>| match hangs {
            Some(Hangs::Everything) => true,
            Some(Hangs::Bytes) => bytes,
            None => false,
        };
        self.changed.wait_while_for(&mut self.hangs.lock(), shut, HANGS_AT_MOST);
    }

    fn set(&self, hangs: Option<Hangs>) {
        *self.hangs.lock() = hangs;
        self.changed.notify_all();
    }
}

/// See the module. It is unmounted when it is dropped.
pub struct FarDirectory {
    gate: Arc<Gate>,
    session: Option<BackgroundSession>,
    dir: TempDir,
}

/// As long as it lives, the directory does not answer.
pub struct Hanging<'a>(&'a Gate);

impl FarDirectory {
    /// Mounts one, with an empty directory behind it.
    #[track_caller]
    pub fn mount() -> Self {
        let dir = tempfile::Builder::new().prefix("vmds-far-").tempdir().expect("make a temporary directory");
        let (behind, mounted) = (dir.path().join("behind"), dir.path().join("mounted"));
        fs::create_dir(&behind).expect("make a directory");
        fs::create_dir(&mounted).expect("make a directory");
        let gate = Arc::new(Gate::default());
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("far".into())];
        // Whoever gets a descriptor may use it, as it is elsewhere.
        config.acl = SessionACL::All;
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(Far::new(behind, gate.clone()), &mounted, &config);
        Self { gate, session: Some(session.expect("mount a file system")), dir }
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    /// The same files, without the file system in between: always answers.
    pub fn behind(&self) -> PathBuf {
        self.dir.path().join("behind")
    }

    /// Stops answering, until what is returned is dropped. Drop it before whatever waits for the directory.
    #[must_use]
    pub fn hang(&self, what: Hangs) -> Hanging<'_> {
        self.gate.set(Some(what));
        Hanging(&self.gate)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

impl Drop for FarDirectory {
    fn drop(&mut self) {
        self.gate.set(None);
        unmount(self.dir.path());
        // What is unmounted has nothing more to ask, so its threads end.
        drop(self.session.take());
    }
}

fn unmount(dir: &Path) {
    detach_all_under(dir);
}
