//! An engine that lives in memory: for tests and as the model the others are compared with. It survives nothing.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{Batch, Engine, Reader, Value, Visit};
use crate::error::Result;
use crate::ids::Seq;
use crate::key::Key;

type Records = BTreeMap<Key, Value>;

/// An engine in memory.
///
/// Snapshots and scans share the records with the engine; the first commit while one of them lives copies all keys,
/// every other commit copies nothing.
#[derive(Default)]
pub struct MemoryEngine {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    records: Arc<Records>,
    last: u64,
}

struct MemorySnapshot(Arc<Records>);

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }

    fn now(&self) -> MemorySnapshot {
        MemorySnapshot(self.state.read().records.clone())
    }
}

impl Reader for MemorySnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        for (key, value) in self.0.range::<[u8], _>(bounds) {
            if !visit(key, value)? {
                break;
            }
        }
        Ok(())
    }
}

impl Reader for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        Ok(self.state.read().records.get(key).cloned())
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        self.now().scan(start, end, visit)
    }
}

impl Engine for MemoryEngine {
    fn commit(&self, batch: &Batch) -> Result<Seq> {
        let mut state = self.state.write();
        let records = Arc::make_mut(&mut state.records);
        for (key, value) in batch.changes() {
            match value {
                Some(value) => records.insert(key.clone(), value.clone()),
                None => records.remove(key),
            };
        }
        state.last += 1;
        Ok(Seq(state.last))
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Reader + Send + '_>> {
        Ok(Box::new(self.now()))
    }
}
