//! Why the store refused or failed.

use address_map::MapError;
use thiserror::Error;

use crate::resource::{DecodeError, Invalid, Kind};

/// An error of the store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is no such resource.
    #[error("there is no {kind} '{name}'")]
    NotFound {
        /// The kind.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// The resource is at another version than expected.
    #[error("the {kind} '{name}' has changed: it is at version {found}, not {expected}")]
    Stale {
        /// The kind.
        kind: Kind,
        /// The name.
        name: String,
        /// Version expected.
        expected: u64,
        /// Version found; 0: it does not exist.
        found: u64,
    },
    /// The resource exists with another spec.
    #[error("the {kind} '{name}' exists already, with other settings")]
    Exists {
        /// The kind.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// The resource is going away.
    #[error("the {kind} '{name}' is being deleted")]
    BeingDeleted {
        /// The kind.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// What is wanted makes no sense.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// All numbers of a kind are used up.
    #[error("no more resources of kind {0} can ever be made: all numbers are used up")]
    Exhausted(Kind),
    /// A newer version of VMDS wrote the state.
    #[error(
        "the state was written by a newer version of VMDS (format {found}, this one reads up to {known}); upgrade this controller, or restore the state from before the upgrade"
    )]
    TooNew {
        /// Format found.
        found: u8,
        /// Newest format known here.
        known: u8,
    },
    /// A stored record is not readable.
    #[error("the stored record '{key}' is damaged")]
    Corrupt {
        /// Its key.
        key: String,
        /// What was wrong, where known.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// A stored resource is not that of its kind.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The engine failed.
    #[error("the state cannot be read or written")]
    Engine(#[from] MapError),
}
