//! A watch: all changes of the store after a version, in order, as they happen.
//!
//! **Guarantees**: no change is left out or told twice. A watcher that is too slow (or comes from before a restart)
//! is told so with [`Gone`] and lists again; it never slows down the store.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch::Receiver;

use crate::store::{Event, Gone, Store};

/// Changes taken from the store at a time.
const BATCH: usize = 256;

/// A position in the history of the store.
pub struct Watch {
    store: Arc<Store>,
    changed: Receiver<u64>,
    taken: VecDeque<Event>,
    position: u64,
}

impl Watch {
    /// Everything after version `from`.
    pub fn new(store: &Arc<Store>, from: u64) -> Self {
        Self { store: Arc::clone(store), changed: store.subscribe(), taken: VecDeque::new(), position: from }
    }

    /// Waits for the next change. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// The change is not known any more.
    pub async fn next(&mut self) -> Result<Event, Gone> {
        loop {
            if let Some(event) = self.taken.pop_front() {
                self.position = event.version;
                return Ok(event);
            }
            // Seen before looking, so that a change in between wakes the wait below.
            self.changed.borrow_and_update();
            self.taken.extend(self.store.events_since(self.position, BATCH)?);
            if self.taken.is_empty() && self.changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// The version up to which everything was told.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether a watch can begin at its position.
    ///
    /// # Errors
    /// It cannot: changes since then are not known any more.
    pub fn check(&self) -> Result<(), Gone> {
        self.store.events_since(self.position, 0).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use address_map::clock::ManualClock;
    use address_map::engine::MemoryEngine;
    use serde_json::json;

    use super::*;
    use crate::resource::{Kind, Manifest};

    #[tokio::test]
    async fn a_watch_tells_old_and_new_changes_in_order() {
        let store = Store::open(Arc::new(MemoryEngine::default()), Arc::new(ManualClock::default())).unwrap();
        let put = |name: &str| {
            store.apply(Kind::Tenant, name, &Manifest::new(Kind::Tenant, name, json!({})), 0).unwrap();
        };
        put("a");
        put("b");
        let mut watch = Watch::new(&store, 1);
        assert_eq!(watch.next().await.unwrap().object.name(), "b");
        let (event, ()) = tokio::join!(watch.next(), async { put("c") });
        assert_eq!((event.unwrap().object.name(), watch.position()), ("c", 3));
        assert!(Watch::new(&store, 99).check().is_err());
        assert!(Watch::new(&store, 99).next().await.is_err());
    }
}
