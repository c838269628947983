//! The life of a FUSE session on a device that was mounted and greeted by somebody else.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use fuser::{Config, InitFlags, KernelConfig, Session, SessionACL};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{info, warn};

use super::Mount;
use super::kernel::{MountedKernel, ask_for_unanswered};
use crate::descriptors::replace;
use crate::fs::Fs;
use crate::notices::Notices;

/// Longest time the kernel's first message may take to arrive from the agent.
const GREETING: Duration = Duration::from_secs(10);
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
const WANTED: [InitFlags; 12] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_AUTO_INVAL_DATA,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_HAS_RESEND,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    // The kernel checks access control lists; what a new inode begins with is decided where the umask is applied.
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DONT_MASK,
];

/// What depends on the kernel's offer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Agreed {
    /// The kernel can move bytes itself.
    pub(super) passthrough: bool,
    /// Directories need not be opened.
    pub(super) no_opendir: bool,
}

/// Agrees with the kernel on how to talk. The outcome depends on nothing but what the kernel offers, so it is the
/// same for every process that serves a mount.
pub(super) fn negotiate(config: &mut KernelConfig) -> io::Result<Agreed> {
    for flag in WANTED {
        // What is not offered is done without.
        let _ = config.add_capabilities(flag);
    }
    let invalid = |what: &'static str| io::Error::new(io::ErrorKind::InvalidInput, what);
    config.set_max_write(MAX_WRITE).map_err(|_| invalid("largest write"))?;
    config.set_max_background(MAX_BACKGROUND).map_err(|_| invalid("requests ahead"))?;
    let no_opendir = config.add_capabilities(InitFlags::FUSE_NO_OPENDIR_SUPPORT).is_ok();
    let passthrough = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
    if passthrough {
        config.set_max_stack_depth(STACK_DEPTH).map_err(|_| invalid("depth of stacking"))?;
    }
    Ok(Agreed { passthrough, no_opendir })
}

/// Waits until the kernel's first message is there, but not for ever.
fn await_greeting(handshake: &OwnedFd) -> io::Result<()> {
    let mut polled = [PollFd::new(handshake, PollFlags::IN)];
    let deadline = Timespec::try_from(GREETING).map_err(|_| io::ErrorKind::InvalidInput)?;
    match rustix::io::retry_on_intr(|| poll(&mut polled, Some(&deadline)))? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel's first message did not arrive")),
        _ => Ok(()),
    }
}

/// Waits until the agent says to begin: until then another process may be serving the mount.
fn await_word(handshake: impl AsFd) -> io::Result<()> {
    match rustix::io::retry_on_intr(|| rustix::io::read(&handshake, &mut [0; 1]))? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the agent ended before it said to begin")),
        _ => Ok(()),
    }
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
    await_greeting(&handshake)?;
    let session =
        Session::from_fd(Mount { fs, agreed: Agreed::default() }, handshake, SessionACL::All, config)?;
    await_word(session.as_fd())?;
    replace(session.as_fd(), &device)?;
    notices.start(Arc::new(MountedKernel::new(session.notifier(), device)))?;
    if resend && let Err(error) = ask_for_unanswered(session.as_fd()) {
        warn!(
            error = &error as &dyn std::error::Error,
            "the kernel does not resend; what was unanswered stays so"
        );
    }
    info!("serving");
    session.run()
}
