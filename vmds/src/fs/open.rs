//! Opening and closing files.

use std::sync::Arc;

use address_map::ids::NodeId;
use address_map::wire::Call;

use super::error::Errno;
use super::{Done, Fs};
use crate::data::leases::{Granted, Want};

/// A file handle. It describes itself: nothing about it is kept in a table, so it outlives this process.
///
/// Bit 0 says whether it can write, the upper half which generation of the VMDS opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle(pub(crate) u64);

impl Handle {
    fn new(write: bool, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(write))
    }

    fn can_write(self) -> bool {
        self.0 & 1 == 1
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// How the kernel shall use a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// The handle.
    pub(crate) handle: Handle,
    /// The file under which the kernel moves bytes itself, if it may.
    pub(crate) backing: Option<u32>,
    /// Reads and writes come here all the same, so that growth can be charged.
    pub(crate) seen: bool,
    /// Cached contents are still good.
    pub(crate) keep_cache: bool,
    /// Closing it brings what was written to the object store, and says whether that has worked.
    pub(crate) flush: bool,
}

impl Fs {
    /// Opens a regular file.
    pub(crate) fn open(self: &Arc<Self>, node: NodeId, write: bool, done: impl Done<Opened>) {
        let fs = Arc::clone(self);
        self.with_lease(node, Want::Open { write }, move |granted| {
            done(granted.map(|granted| fs.opened(node, write, &granted)).map_err(Errno::from));
        });
    }

    /// The handle for a lease that has been counted.
    pub(super) fn opened(&self, node: NodeId, write: bool, granted: &Granted) -> Opened {
        Opened {
            handle: Handle::new(write, self.generation),
            backing: granted.backing,
            seen: granted.backing.is_some() && write && self.is_metered(node),
            // Changes of own files by others are pushed; of foreign ones and of those being written nothing is
            // sure.
            keep_cache: granted.backing.is_none()
                && node.is_own()
                && self.cache.attr(node).is_some_and(|attr| !attr.volatile),
            flush: write && granted.held.lease.floating,
        }
    }

    /// One of those who have a handle closes it. What was written is in the pool when this ends well.
    pub(crate) fn flush(self: &Arc<Self>, node: NodeId, handle: Handle, done: impl Done<()>) {
        if !handle.can_write() {
            return done(Ok(()));
        }
        self.call_patiently(Call::Flush { node }, |flushed| {
            done(match flushed {
                Ok(_) => Ok(()),
                Err(refusal) => Err(refusal.into()),
            });
        });
    }

    /// A handle is closed. Ends when the controller knows the size that the last writer left.
    pub(crate) fn release(self: &Arc<Self>, node: NodeId, handle: Handle, done: impl Done<()>) {
        let write = handle.can_write();
        let done = move || done(Ok(()));
        let steps = if handle.generation() == self.generation {
            self.leases.release(node, write, done)
        } else {
            self.leases.release_unknown(node, write, done)
        };
        self.drive(steps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_describe_themselves() {
        let handle = Handle::new(true, 7);
        assert!(handle.can_write());
        assert_eq!(handle.generation(), 7);
        assert!(!Handle::new(false, u32::MAX).can_write());
        assert_eq!(Handle::new(false, u32::MAX).generation(), u32::MAX);
    }
}
