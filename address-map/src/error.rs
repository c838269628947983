//! What can go wrong in the map. Few kinds; each tells the caller what it means.

use bincode::{Decode, Encode};
use thiserror::Error;

use crate::ids::{Ino, TenantId};

/// The result of an operation on the map.
pub type Result<T, E = MapError> = std::result::Result<T, E>;

/// Why an operation of the namespace was refused: the part of an error that crosses the wire and becomes an errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error, Encode, Decode)]
pub enum Refusal {
    /// No such name, inode, attribute target or share; also the answer to everything that may not be known.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("file exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// Anything but a directory was needed.
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("directory not empty")]
    NotEmpty,
    /// The operation would cross the border of a share.
    #[error("crosses the border of a share")]
    CrossesShare,
    /// The entry is the root of a share: it can be moved or dropped, not removed.
    #[error("is the root of a share")]
    ShareRoot,
    /// The share is read-only.
    #[error("read-only share")]
    ReadOnly,
    /// A rename would move a directory into itself, or an argument makes no sense.
    #[error("invalid argument")]
    Invalid,
    /// The operation is not permitted on this kind of inode or to this caller.
    #[error("operation not permitted")]
    NotPermitted,
    /// The caller lacks a permission bit.
    #[error("permission denied")]
    Access,
    /// Too many links to one inode.
    #[error("too many links")]
    TooManyLinks,
    /// A name is too long.
    #[error("name too long")]
    NameTooLong,
    /// The tenant's quota is used up.
    #[error("quota exceeded")]
    Quota,
    /// The pool has no space left.
    #[error("no space left in the pool")]
    NoSpace,
    /// A file would grow beyond what can be stored.
    #[error("file too large")]
    TooLarge,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// An extended attribute or a list of them is too large.
    #[error("attribute too large")]
    AttributeTooLarge,
    /// The operation is not supported here.
    #[error("operation not supported")]
    NotSupported,
    /// The object behind a handle is gone.
    #[error("stale handle")]
    Stale,
    /// Busy: something else holds it; try again.
    #[error("resource busy")]
    Busy,
    /// The other side did not answer in time, or the pool or engine failed. Details are in the controller's log.
    #[error("input/output error")]
    Io,
}

/// An error of the map.
#[derive(Debug, Error)]
pub enum MapError {
    /// The operation was refused; nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The storage engine failed.
    #[error("the shard's engine failed")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A stored record could not be read.
    #[error("record {key} is damaged")]
    Corrupt {
        /// Its key, in hexadecimal.
        key: String,
        /// What was wrong.
        #[source]
        source: crate::codec::CodecError,
    },
    /// The state on disk was written by a newer version.
    #[error(
        "the state was written by a newer version (format {found}, this one reads up to {known}); upgrade first"
    )]
    TooNew {
        /// Format found.
        found: u32,
        /// Newest format known here.
        known: u32,
    },
    /// No such tenant in this map.
    #[error("no such tenant")]
    UnknownTenant,
    /// The entries of a directory are in an object store and were never looked at: they have to be listed first. Nothing
    /// has changed.
    #[error("directory {1} of tenant {0} has not been listed yet")]
    Unlisted(TenantId, Ino),
}

impl MapError {
    /// What the other side of a wire may know of this error.
    pub fn refusal(&self) -> Refusal {
        match self {
            MapError::Refused(refusal) => *refusal,
            MapError::UnknownTenant => Refusal::NotFound,
            MapError::Unlisted(..) => Refusal::Busy,
            MapError::Engine(_) | MapError::Corrupt { .. } | MapError::TooNew { .. } => Refusal::Io,
        }
    }
}

impl From<crate::name::NameError> for MapError {
    fn from(error: crate::name::NameError) -> Self {
        use crate::name::NameError::*;
        MapError::Refused(match error {
            TooLong(_) | PathTooLong(_) => Refusal::NameTooLong,
            Empty | Dots | BadByte | NotAbsolute => Refusal::Invalid,
        })
    }
}
