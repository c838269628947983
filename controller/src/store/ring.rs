//! The most recent changes, in memory: what a watch reads from.

use std::collections::VecDeque;
use std::sync::Arc;

use thiserror::Error;

use crate::resource::Object;

/// What happened to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was made, or its spec, status or metadata changed.
    Put,
    /// It is gone.
    Deleted,
}

/// A committed change.
#[derive(Clone, Debug)]
pub struct Event {
    /// The version of the store that the change made.
    pub version: u64,
    /// What happened.
    pub change: Change,
    /// The resource after the change; for a deletion, as it last was.
    pub object: Arc<Object>,
}

/// The changes after a version are not known any more (or not yet): list again and watch from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("changes since version {from} are not available; those since {oldest} are")]
pub struct Gone {
    /// What was asked for.
    pub from: u64,
    /// The oldest version from which changes are known.
    pub oldest: u64,
}

/// A bounded window on the history.
#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<Event>,
    capacity: usize,
    /// All changes after this version are in `events`.
    floor: u64,
    latest: u64,
}

impl Ring {
    pub(super) fn new(version: u64, capacity: usize) -> Self {
        Self { events: VecDeque::new(), capacity, floor: version, latest: version }
    }

    /// Forgets everything up to `version`.
    pub(super) fn restart(&mut self, version: u64) {
        self.events.clear();
        (self.floor, self.latest) = (version, version);
    }

    pub(super) fn push(&mut self, event: Event) {
        debug_assert!(event.version > self.latest);
        if self.events.len() == self.capacity
            && let Some(oldest) = self.events.pop_front()
        {
            self.floor = oldest.version;
        }
        self.latest = event.version;
        self.events.push_back(event);
    }

    /// At most `limit` changes after `from`, oldest first.
    pub(super) fn since(&self, from: u64, limit: usize) -> Result<Vec<Event>, Gone> {
        if from < self.floor || from > self.latest {
            return Err(Gone { from, oldest: self.floor });
        }
        let start = self.events.partition_point(|event| event.version <= from);
        Ok(self.events.iter().skip(start).take(limit).cloned().collect())
    }
}
