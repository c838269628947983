//! A file system that is soon full.

use std::ffi::CString;
use std::path::Path;

use rustix::mount::{MountFlags, mount};
use tempfile::TempDir;

use crate::mounts::detach_all_under;

/// A small file system in memory; it is unmounted when this is dropped.
#[derive(Debug)]
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts one with room for so many bytes. Only root can enter it.
    #[track_caller]
    pub fn mount(bytes: u64) -> Self {
        let dir =
            tempfile::Builder::new().prefix("vmds-small-").tempdir().expect("make a temporary directory");
        let options = CString::new(format!("size={bytes},mode=0700")).expect("text without NUL");
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), options.as_c_str()).expect("mount a tmpfs");
        Self(dir)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        detach_all_under(self.0.path());
    }
}
