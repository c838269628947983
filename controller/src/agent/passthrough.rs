//! The two `ioctl`s of FUSE passthrough. They need root, so the agent makes them and the VMDS only names the result.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak};

use crate::session::{MountControl, Replaced};

use super::supervise::TenantMount;

/// `FUSE_DEV_IOC_BACKING_OPEN`: `_IOW(229, 1, struct fuse_backing_map)`.
const BACKING_OPEN: libc::Ioctl = 0x4010_e501;
/// `FUSE_DEV_IOC_BACKING_CLOSE`: `_IOW(229, 2, uint32_t)`.
const BACKING_CLOSE: libc::Ioctl = 0x4004_e502;

/// `struct fuse_backing_map` of `linux/fuse.h`.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

/// What a session may ask about its mount: files registered at its FUSE connection, its VMDS replaced.
pub(super) struct Control {
    device: Arc<OwnedFd>,
    /// Known as soon as the mount is up.
    mount: OnceLock<Weak<TenantMount>>,
}

impl Control {
    pub(super) fn new(device: Arc<OwnedFd>) -> Self {
        Self { device, mount: OnceLock::new() }
    }

    /// The mount is up.
    pub(super) fn is_for(&self, mount: &Arc<TenantMount>) {
        let _ = self.mount.set(Arc::downgrade(mount));
    }
}

impl MountControl for Control {
    fn replace_vmds(&self) {
        if let Some(mount) = self.mount.get().and_then(Weak::upgrade) {
            mount.kill();
        }
    }

    fn replace_vmds_and_wait(&self) -> Replaced {
        self.mount.get().and_then(Weak::upgrade).map_or(Replaced::NoProcess, |mount| mount.replace_and_wait())
    }

    fn register(&self, file: BorrowedFd<'_>) -> Option<u32> {
        let map = BackingMap { fd: file.as_raw_fd(), flags: 0, padding: 0 };
        // SAFETY: the descriptor is open, the request takes a `fuse_backing_map` and only reads it. There is no safe
        // wrapper: `rustix` has no FUSE requests.
        let id = unsafe { libc::ioctl(self.device.as_fd().as_raw_fd(), BACKING_OPEN, &raw const map) };
        match u32::try_from(id) {
            Ok(id) => Some(id),
            Err(_) => {
                let error = io::Error::last_os_error();
                tracing::debug!(%error, "this file cannot be passed through");
                None
            }
        }
    }

    fn unregister(&self, backing: u32) {
        // SAFETY: as above; the request reads one `u32`. An unknown number is an error without effect.
        if unsafe { libc::ioctl(self.device.as_fd().as_raw_fd(), BACKING_CLOSE, &raw const backing) } != 0 {
            let error = io::Error::last_os_error();
            tracing::debug!(%error, backing, "the kernel had let go of a file already");
        }
    }
}
