//! Engines: where a shard's records are kept, as an ordered key-value space.
//!
//! An engine is told *what* to store, never what it means. Every engine passes the same `conformance` suite.

mod committer;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod fjall;
mod memory;

pub use committer::{Committer, CommitterError};
pub use fjall::{FjallEngine, FjallOptions, FjallStore, STORE_FORMAT, StoreError};
pub use memory::MemoryEngine;

use crate::error::Result;
use crate::ids::Seq;
use crate::key::Key;

/// Bytes of a stored value; cheap to clone.
pub type Value = std::sync::Arc<[u8]>;

/// Changes that become visible together or not at all. The last change of a key wins.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<(Key, Option<Value>)>,
}

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, key: Key, value: impl Into<Value>) {
        self.changes.push((key, Some(value.into())));
    }

    /// Removes a key; it need not exist.
    pub fn delete(&mut self, key: Key) {
        self.changes.push((key, None));
    }

    /// The changes in the order they were made; `None` is a removal.
    pub fn changes(&self) -> &[(Key, Option<Value>)] {
        &self.changes
    }

    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// What is done with each record of a scan; it goes on as long as the answer is `true`.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool> + 'a;

/// A reader of an engine's state.
pub trait Reader {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Value>>;

    /// Calls `visit` for each key in `start..end` (`end` absent: to the last key), in order, until it answers `false`.
    fn scan(&self, start: &[u8], end: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()>;
}

/// An ordered key-value space with atomic, ordered commits.
///
/// A commit is visible to every reader when [`Engine::commit`] returns, and survives the death of the process
/// (engines that live in memory excepted). It survives a power loss once [`Engine::sync`] has been called after it.
pub trait Engine: Reader + Send + Sync + 'static {
    /// Applies a batch atomically. The number answered is larger than all before.
    fn commit(&self, batch: &Batch) -> Result<Seq>;

    /// Makes every commit so far survive a power loss.
    fn sync(&self) -> Result<()>;

    /// The state as of now, unmoved by later commits.
    fn snapshot(&self) -> Result<Box<dyn Reader + Send + '_>>;
}
