//! What the kernel tells about its FUSE connections (`fusectl`), on a mount of it that nobody else sees.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Longer than any number the kernel writes.
const NUMBER_MAX: usize = 32;

/// See the module.
pub(super) struct Connections {
    root: OwnedFd,
}

impl Connections {
    /// All connections of this kernel.
    pub(super) fn open() -> io::Result<Self> {
        let context = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        Ok(Self { root })
    }

    /// How many requests of a file system, named by its device number, have no answer yet.
    pub(super) fn waiting(&self, device: u64) -> io::Result<u64> {
        let file = self.file(device, "waiting", OFlags::RDONLY)?;
        let mut text = [0; NUMBER_MAX];
        let length = rustix::io::read(&file, &mut text)?;
        let number = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim().parse().ok());
        number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the kernel wrote no number"))
    }

    /// Ends a connection: all who wait get an error, and so does everybody who comes after.
    pub(super) fn abort(&self, device: u64) -> io::Result<()> {
        rustix::io::write(self.file(device, "abort", OFlags::WRONLY)?, b"1")?;
        Ok(())
    }

    fn file(&self, device: u64, name: &str, access: OFlags) -> io::Result<OwnedFd> {
        // FUSE file systems have devices without a major number; their connections are named by the minor one.
        let path = format!("{}/{name}", rustix::fs::minor(device));
        Ok(rustix::fs::openat(&self.root, path, access | OFlags::CLOEXEC, Mode::empty())?)
    }
}
