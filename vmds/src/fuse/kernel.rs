//! The notices that the kernel takes, as messages on the FUSE device.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use address_map::ids::NodeId;
use address_map::name::Name;
use fuser::Notifier;
use tracing::debug;

use super::convert::ino;
use crate::notices::Kernel;

/// `FUSE_NOTIFY_RESEND`: send again what a process before this one has read and not answered (Linux 6.9).
const RESEND: i32 = 7;
/// `FUSE_NOTIFY_INC_EPOCH`: ask anew for all names (Linux 6.16).
const INC_EPOCH: i32 = 8;
/// Bytes of a message that is only a header.
const HEADER: u32 = 16;

fn send(device: impl AsFd, code: i32) -> io::Result<()> {
    let mut message = [0; HEADER as usize];
    message[..4].copy_from_slice(&HEADER.to_ne_bytes());
    message[4..8].copy_from_slice(&code.to_ne_bytes());
    rustix::io::write(device, &message)?;
    Ok(())
}

/// Asks for requests that a process before this one has read. Only to be used before the first one is read here.
pub(super) fn ask_for_unanswered(device: impl AsFd) -> io::Result<()> {
    send(device, RESEND)
}

/// The kernel's end of a mount.
pub(super) struct MountedKernel {
    notifier: Notifier,
    device: OwnedFd,
}

impl MountedKernel {
    /// The kernel behind a session and its device.
    pub(super) fn new(notifier: Notifier, device: OwnedFd) -> Self {
        Self { notifier, device }
    }
}

impl Kernel for MountedKernel {
    fn forget_entry(&self, parent: NodeId, name: &Name) {
        note(self.notifier.inval_entry(ino(parent), OsStr::from_bytes(name.as_bytes())));
    }

    fn forget_inode(&self, node: NodeId, data: bool) {
        // A negative offset means "attributes only", length 0 "to the end".
        let offset = if data { 0 } else { -1 };
        note(self.notifier.inval_inode(ino(node), offset, 0));
    }

    fn forget_all_entries(&self) -> bool {
        send(&self.device, INC_EPOCH).is_ok()
    }
}

/// What the kernel refuses to forget it does not have: the inode is gone, or the mount.
fn note(told: io::Result<()>) {
    if let Err(error) = told {
        debug!(error = &error as &dyn std::error::Error, "the kernel did not take a notice");
    }
}
