//! The store: resources, durable and versioned, on the engine of the system shard.
//!
//! Every change gets the next version of one global sequence, is committed together with it, made durable, and only
//! then acknowledged. Methods block; [`Store::run`] calls them from async code. The store knows when a spec may
//! replace another; it never decides what follows from it.

mod error;
mod format;
mod ring;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;

use address_map::clock::Clock;
use address_map::engine::{Batch, Engine};
use address_map::key::{Key, after_prefix};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

pub use error::StoreError;
use ring::Ring;
pub use ring::{Change, Event, Gone};
pub use write::Outcome;

use crate::resource::{Kind, Object, Resource, ResourceType, to_value};

/// Changes that a watch can be behind, in events.
const EVENTS_KEPT: usize = 4096;

/// The result of an operation of the store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The resources.
pub struct Store {
    engine: Arc<dyn Engine>,
    clock: Arc<dyn Clock>,
    /// Held from reading what a change depends on until it is committed; the version of the last commit.
    writer: Mutex<u64>,
    ring: Mutex<Ring>,
    changed: watch::Sender<u64>,
}

impl Store {
    /// Opens the store that `engine` holds, or begins one.
    ///
    /// # Errors
    /// A newer version wrote it, or the engine fails.
    pub fn open(engine: Arc<dyn Engine>, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        Self::open_with_history(engine, clock, EVENTS_KEPT)
    }

    fn open_with_history(engine: Arc<dyn Engine>, clock: Arc<dyn Clock>, events: usize) -> Result<Arc<Self>> {
        match engine.get(format::FORMAT_KEY)?.as_deref() {
            Some([found, ..]) => format::check_format(*found)?,
            Some([]) => {
                let key = String::from_utf8_lossy(format::FORMAT_KEY).into_owned();
                return Err(StoreError::Corrupt { key, source: None });
            }
            None => {
                let mut batch = Batch::default();
                batch.put(Key::from_slice(format::FORMAT_KEY), vec![format::FORMAT]);
                engine.commit(&batch)?;
                engine.sync()?;
            }
        }
        let version = match engine.get(format::VERSION_KEY)? {
            Some(bytes) => format::decode_number(format::VERSION_KEY, &bytes)?,
            None => 0,
        };
        let ring = Mutex::new(Ring::new(version, events));
        let (changed, _) = watch::channel(version);
        let store = Self { engine, clock, writer: Mutex::new(version), ring, changed };
        store.take_back_readiness()?;
        Ok(Arc::new(store))
    }

    /// What the last controller said of processes and pools it had open is not true of this one.
    fn take_back_readiness(&self) -> Result<()> {
        let (mut version, objects) = self.list(Kind::ALL)?;
        let mut batch = Batch::default();
        for old in objects {
            let status = (old.kind.info().restarted)(&old)?;
            if status == old.status {
                continue;
            }
            version += 1;
            let mut new = Object { status, ..old };
            new.metadata.resource_version = version;
            batch.put(format::resource_key(new.kind, new.name()), format::encode(&new));
        }
        if batch.is_empty() {
            return Ok(());
        }
        batch.put(Key::from_slice(format::VERSION_KEY), version.to_be_bytes().to_vec());
        self.engine.commit(&batch)?;
        self.engine.sync()?;
        *self.writer.lock() = version;
        self.ring.lock().restart(version);
        self.changed.send_replace(version);
        Ok(())
    }

    /// Runs `work` on the store on a thread that may block.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> T {
        let store = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// The resource called `name`.
    pub fn get(&self, kind: Kind, name: &str) -> Result<Option<Object>> {
        let key = format::resource_key(kind, name);
        self.engine.get(&key)?.map(|bytes| format::decode(&key, &bytes)).transpose()
    }

    /// The same, typed.
    pub fn read<T: ResourceType>(&self, name: &str) -> Result<Option<Resource<T>>> {
        Ok(self.get(T::KIND, name)?.map(|object| object.typed()).transpose()?)
    }

    /// All resources of the kinds, by kind and name, and the version of the store that shows exactly them.
    pub fn list(&self, kinds: &[Kind]) -> Result<(u64, Vec<Object>)> {
        let (version, snapshot) = {
            let version = self.writer.lock();
            (*version, self.engine.snapshot()?)
        };
        let mut objects = Vec::new();
        for &kind in kinds {
            let start = format::kind_prefix(kind);
            let mut damaged = None;
            snapshot.scan(&start, after_prefix(&start).as_deref(), &mut |key, bytes| {
                match format::decode(key, bytes) {
                    Ok(object) => objects.push(object),
                    Err(error) => damaged = Some(error),
                }
                Ok(damaged.is_none())
            })?;
            if let Some(error) = damaged {
                return Err(error);
            }
        }
        Ok((version, objects))
    }

    /// All resources of a kind, typed.
    pub fn read_all<T: ResourceType>(&self) -> Result<Vec<Resource<T>>> {
        let (_, objects) = self.list(&[T::KIND])?;
        objects.iter().map(|object| Ok(object.typed()?)).collect()
    }

    /// The version of the last change.
    pub fn version(&self) -> u64 {
        *self.changed.borrow()
    }

    /// At most `limit` changes after version `from`, oldest first.
    pub fn events_since(&self, from: u64, limit: usize) -> Result<Vec<Event>, Gone> {
        self.ring.lock().since(from, limit)
    }

    /// Tells of every new version.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The clock of the store.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

/// A spec as JSON, for manifests made in this process.
pub fn spec_value<T: ResourceType>(spec: &T::Spec) -> Value {
    to_value(spec)
}
