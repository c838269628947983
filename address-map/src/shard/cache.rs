//! A bounded cache of records in two generations: what is used again in time moves on to the younger one, the older
//! one is dropped whole. It is exact: a reader never finds a value older than the last commit applied.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use parking_lot::RwLock;

use crate::engine::Value;
use crate::key::Key;

struct Generations {
    young: DashMap<Key, Value>,
    old: DashMap<Key, Value>,
}

/// See the module.
pub(super) struct RecordCache {
    generations: RwLock<Generations>,
    /// Insertions into the young generation since it began.
    young_inserts: AtomicUsize,
    /// Records per generation.
    capacity: usize,
    /// Moves with every commit, before the commit is applied here: a value read from the engine before that may be
    /// old and is not taken in.
    version: AtomicU64,
}

impl RecordCache {
    /// A cache of about `records` records.
    pub(super) fn new(records: usize) -> Self {
        Self {
            generations: RwLock::new(Generations { young: DashMap::new(), old: DashMap::new() }),
            young_inserts: AtomicUsize::new(0),
            capacity: (records / 2).max(1),
            version: AtomicU64::new(0),
        }
    }

    /// To be taken before reading from the engine what is then offered to [`RecordCache::fill`].
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// A cached record.
    pub(super) fn get(&self, key: &Key) -> Option<Value> {
        let version = self.version();
        let found_old = {
            let generations = self.generations.read();
            if let Some(value) = generations.young.get(key) {
                return Some(value.clone());
            }
            generations.old.get(key).map(|value| value.clone())
        }?;
        self.fill(key, &found_old, version);
        Some(found_old)
    }

    /// Takes in a value read from the engine, unless something was committed since `version` was taken.
    pub(super) fn fill(&self, key: &Key, value: &Value, version: u64) {
        {
            let generations = self.generations.read();
            let Slot::Vacant(slot) = generations.young.entry(key.clone()) else { return };
            if self.version() != version {
                return;
            }
            slot.insert(value.clone());
        }
        self.count_inserts(1);
    }

    /// Follows a commit. Called by the shard's only writer, after the engine has committed.
    pub(super) fn apply(&self, changes: &[(Key, Option<Value>)]) {
        self.version.fetch_add(1, Ordering::AcqRel);
        {
            let generations = self.generations.read();
            for (key, value) in changes {
                generations.old.remove(key);
                match value {
                    Some(value) => drop(generations.young.insert(key.clone(), value.clone())),
                    None => drop(generations.young.remove(key)),
                }
            }
        }
        self.count_inserts(changes.len());
    }

    fn count_inserts(&self, inserts: usize) {
        if self.young_inserts.fetch_add(inserts, Ordering::Relaxed) + inserts < self.capacity {
            return;
        }
        let mut generations = self.generations.write();
        if self.young_inserts.swap(0, Ordering::Relaxed) >= self.capacity {
            generations.old = std::mem::take(&mut generations.young);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        Key::from_slice(&n.to_be_bytes())
    }

    fn value(text: &str) -> Value {
        text.as_bytes().into()
    }

    #[test]
    fn a_value_read_before_a_commit_is_not_taken_in_after_it() {
        let cache = RecordCache::new(100);
        let version = cache.version();
        cache.apply(&[(key(1), None)]);
        cache.fill(&key(1), &value("old"), version);
        assert!(cache.get(&key(1)).is_none());
        cache.fill(&key(1), &value("new"), cache.version());
        assert_eq!(cache.get(&key(1)), Some(value("new")));
    }

    #[test]
    fn it_stays_within_its_bound_and_keeps_what_is_used() {
        let cache = RecordCache::new(100);
        cache.fill(&key(0), &value("kept"), cache.version());
        for n in 1..1000 {
            cache.fill(&key(n), &value("x"), cache.version());
            assert_eq!(cache.get(&key(0)), Some(value("kept")));
        }
        let generations = cache.generations.read();
        assert!(generations.young.len() + generations.old.len() <= 100);
    }

    #[test]
    fn a_commit_replaces_a_value_in_the_old_generation() {
        let cache = RecordCache::new(4);
        cache.fill(&key(1), &value("one"), cache.version());
        cache.fill(&key(2), &value("two"), cache.version());
        cache.apply(&[(key(1), Some(value("uno")))]);
        assert_eq!(cache.get(&key(1)), Some(value("uno")));
    }
}
