//! The life of a FUSE session on a device that was mounted and greeted by somebody else.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use fuser::{Config, InitFlags, KernelConfig, Session, SessionACL};
use tracing::{info, warn};

use super::Mount;
use super::kernel::{MountedKernel, ask_for_unanswered};
use super::notices::Notices;
use crate::descriptors::replace;
use crate::fs::Fs;

/// Threads that read requests. None of them ever waits for the controller or for storage.
const SESSION_THREADS: usize = 2;
/// Largest write, bytes.
const MAX_WRITE: u32 = 1024 * 1024;
/// Most requests that the kernel sends ahead (read-ahead, asynchronous I/O).
const MAX_BACKGROUND: u16 = 64;
/// How deep file systems are stacked: passthrough to a backing file is one level.
const STACK_DEPTH: u32 = 1;

/// What is used of the kernel, each only if it is offered.
///
/// Never to be added: remote locks (the kernel's own survive this process), `SETXATTR_EXT`, `ALLOW_IDMAP`,
/// `HANDLE_KILLPRIV*` (not handled by `fuser`), `WRITEBACK_CACHE` (files change at other mounts) and
/// `ATOMIC_O_TRUNC` (opening would change the map).
const WANTED: [InitFlags; 11] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_AUTO_INVAL_DATA,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_HAS_RESEND,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
];

/// Agrees with the kernel on how to talk. The outcome depends on nothing but what the kernel offers, so it is the
/// same for every process that serves a mount. Tells whether passthrough was agreed on.
pub(super) fn negotiate(config: &mut KernelConfig) -> io::Result<bool> {
    for flag in WANTED {
        // What is not offered is done without.
        let _ = config.add_capabilities(flag);
    }
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    config.set_max_write(MAX_WRITE).map_err(invalid)?;
    config.set_max_background(MAX_BACKGROUND).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    config.set_time_granularity(Duration::from_nanos(1)).map_err(|_| io::ErrorKind::InvalidInput)?;
    if config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_err() {
        return Ok(false);
    }
    config.set_max_stack_depth(STACK_DEPTH).map_err(invalid)?;
    Ok(true)
}

/// Serves the mount behind `device` until it is unmounted. The handshake is done on `handshake`, where the kernel's
/// first message waits; `resend` says that another process has served the mount before.
pub(crate) fn serve(
    fs: Arc<Fs>,
    notices: &Arc<Notices>,
    handshake: OwnedFd,
    device: OwnedFd,
    resend: bool,
) -> io::Result<()> {
    let mut config = Config::default();
    config.n_threads = Some(SESSION_THREADS);
    config.acl = SessionACL::All;
    let session = Session::from_fd(Mount { fs }, handshake, SessionACL::All, config)?;
    replace(session.as_fd(), &device)?;
    notices.start(Arc::new(MountedKernel::new(session.notifier(), device)))?;
    if resend && let Err(error) = ask_for_unanswered(session.as_fd()) {
        warn!(error = &error as &dyn std::error::Error, "the kernel does not resend; what was unanswered stays so");
    }
    info!("serving");
    session.run()
}
