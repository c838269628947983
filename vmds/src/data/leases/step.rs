//! What is wanted of a lease, what is granted, and the steps the table of leases asks for.

use std::collections::VecDeque;
use std::sync::Arc;

use address_map::error::Refusal;
use address_map::ids::NodeId;
use thiserror::Error;

use crate::data::fd::Held;

/// What a request wants of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// A handle is opened.
    Open {
        /// For writing too.
        write: bool,
    },
    /// A handle is used.
    Use {
        /// For writing: a change goes on until its end is told.
        write: bool,
    },
}

impl Want {
    pub(super) fn write(self) -> bool {
        match self {
            Want::Open { write } | Want::Use { write } => write,
        }
    }

    /// Whether bytes are about to be moved.
    pub(super) fn bytes(self) -> bool {
        matches!(self, Want::Use { .. })
    }
}

/// What a request gets.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    /// The descriptor.
    pub(crate) held: Arc<Held>,
    /// The kernel moves the bytes itself, with the file it knows under this number. The same for all handles of an
    /// inode that are open at the same time.
    pub(crate) backing: Option<u32>,
}

/// Why a request gets no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Denied {
    /// The controller refused, or did not answer.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This process has no descriptor left for it.
    #[error("too many open files")]
    TooManyFiles,
}

/// What goes on with a request once its lease is decided.
pub(crate) type Waiter = Box<dyn FnOnce(Result<Granted, Denied>) + Send>;
/// What goes on when a handle is closed.
pub(crate) type Closer = Box<dyn FnOnce() + Send>;

/// What is to be done next, outside the lock of the table.
pub(crate) enum Step {
    /// Ask the controller for a lease, then call [`Leases::answered`].
    Ask {
        /// The inode.
        node: NodeId,
        /// For writing.
        write: bool,
        /// Bytes are about to be moved.
        fill: bool,
    },
    /// Tell the controller that nobody writes any more, then call [`Leases::closed`].
    CloseWrite {
        /// The inode.
        node: NodeId,
    },
    /// Close the descriptor, tell the controller, then call [`Leases::dropped`].
    Drop {
        /// The inode.
        node: NodeId,
        /// Its descriptor.
        held: Option<Arc<Held>>,
        /// Tell also that the kernel has forgotten the inode.
        forgotten: bool,
    },
    /// Close a descriptor that has been replaced or recalled.
    Discard(Arc<Held>),
    /// Answer a request that waited.
    Answer(Waiter, Result<Granted, Denied>),
    /// Answer a release that waited.
    Released(Closer),
}

/// Steps, in order.
pub(crate) type Steps = VecDeque<Step>;
