//! Changes of the store: each reads what it depends on, commits and is told to watchers under the writer's lock, and
//! is made durable before it is acknowledged.

use std::sync::Arc;

use address_map::engine::Batch;
use address_map::key::Key;

use super::{Change, Event, Result, Store, StoreError, format};
use crate::resource::{ApiVersion, Kind, Manifest, Metadata, Object, Resource, ResourceType, to_value};

/// What [`Store::apply`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The resource is new.
    Created,
    /// Its spec changed.
    Configured,
    /// It was so already.
    Unchanged,
}

impl Store {
    /// Makes the spec of `name` what the manifest says, creating the resource if need be; `by` is the user's uid.
    ///
    /// # Errors
    /// The spec is refused, the resource is being deleted, or it is not at the version the manifest expects.
    pub fn apply(&self, kind: Kind, name: &str, manifest: &Manifest, by: u32) -> Result<(Outcome, Object)> {
        let done = {
            let mut version = self.writer.lock();
            match self.get(kind, name)? {
                Some(old) => self.replace(&mut version, old, manifest)?,
                None => (Outcome::Created, self.create(&mut version, kind, name, manifest, by)?),
            }
        };
        self.engine.sync()?;
        Ok(done)
    }

    fn create(
        &self,
        version: &mut u64,
        kind: Kind,
        name: &str,
        manifest: &Manifest,
        by: u32,
    ) -> Result<Object> {
        if let Some(expected) = manifest.metadata.resource_version.filter(|&v| v != 0) {
            return Err(StoreError::Stale { kind, name: name.to_owned(), expected, found: 0 });
        }
        let info = kind.info();
        let spec = (info.admit)(name, &manifest.spec, None)?;
        let mut batch = Batch::default();
        let uid = self.count(&mut batch, format::UID_COUNTER)?;
        let number = self.count(&mut batch, info.plural)?;
        let status = (info.born)(number).ok_or(StoreError::Exhausted(kind))?;
        let metadata = Metadata {
            name: name.to_owned(),
            uid,
            resource_version: 0,
            generation: 1,
            created: self.clock.now().into(),
            created_by: by,
            deletion_requested: false,
            deletion_forced: false,
        };
        self.commit(version, batch, Object { api_version: ApiVersion::V1, kind, metadata, spec, status })
    }

    fn replace(&self, version: &mut u64, old: Object, manifest: &Manifest) -> Result<(Outcome, Object)> {
        let (kind, name) = (old.kind, old.name().to_owned());
        let found = old.metadata.resource_version;
        let expected = manifest.metadata.resource_version;
        if old.metadata.deletion_requested {
            return Err(StoreError::BeingDeleted { kind, name });
        }
        let admit = kind.info().admit;
        let spec = match admit(&name, &manifest.spec, Some(&old.spec)) {
            Err(_) if expected == Some(0) => return Err(StoreError::Exists { kind, name }),
            checked => checked?,
        };
        // What an older version stored may lack defaults that are new.
        if admit(&name, &old.spec, None).is_ok_and(|full| full == spec) {
            return Ok((Outcome::Unchanged, old));
        }
        // Status moves on by itself: who wishes for what is wished for already has missed nothing.
        if let Some(expected) = expected.filter(|&v| v != 0 && v != found) {
            return Err(StoreError::Stale { kind, name, expected, found });
        }
        if expected == Some(0) {
            return Err(StoreError::Exists { kind, name });
        }
        let mut new = Object { spec, ..old };
        new.metadata.generation += 1;
        Ok((Outcome::Configured, self.commit(version, Batch::default(), new)?))
    }

    /// Asks for a resource to go away; its reconciler does the rest. `forced` stays once given.
    ///
    /// # Errors
    /// There is none, or it is not at the version `expected`.
    pub fn request_deletion(
        &self,
        kind: Kind,
        name: &str,
        expected: Option<u64>,
        forced: bool,
    ) -> Result<Object> {
        let done = {
            let mut version = self.writer.lock();
            let missing = || StoreError::NotFound { kind, name: name.to_owned() };
            let mut object = self.get(kind, name)?.ok_or_else(missing)?;
            let found = object.metadata.resource_version;
            if let Some(expected) = expected.filter(|&v| v != found) {
                return Err(StoreError::Stale { kind, name: name.to_owned(), expected, found });
            }
            let meta = &mut object.metadata;
            if meta.deletion_requested && (meta.deletion_forced || !forced) {
                object
            } else {
                meta.deletion_requested = true;
                meta.deletion_forced |= forced;
                meta.generation += 1;
                self.commit(&mut version, Batch::default(), object)?
            }
        };
        self.engine.sync()?;
        Ok(done)
    }

    /// Records what a reconciler saw. Nothing happens if the resource was replaced or is gone, or is so already.
    pub fn set_status<T: ResourceType>(&self, resource: &Resource<T>) -> Result<()> {
        self.change_observed(resource, |_| ())
    }

    /// Records what a reconciler saw, and that the resource stays although its deletion was asked for.
    pub fn withdraw_deletion<T: ResourceType>(&self, resource: &Resource<T>) -> Result<()> {
        self.change_observed(resource, |meta| {
            (meta.deletion_requested, meta.deletion_forced) = (false, false);
        })
    }

    fn change_observed<T: ResourceType>(
        &self,
        resource: &Resource<T>,
        change: impl FnOnce(&mut Metadata),
    ) -> Result<()> {
        {
            let mut version = self.writer.lock();
            let Some(old) = self.get(T::KIND, resource.name())? else { return Ok(()) };
            if old.metadata.uid != resource.metadata.uid {
                return Ok(());
            }
            let mut new = Object { status: to_value(&resource.status), ..old.clone() };
            change(&mut new.metadata);
            if new == old {
                return Ok(());
            }
            self.commit(&mut version, Batch::default(), new)?;
        }
        Ok(self.engine.sync()?)
    }

    /// Removes a resource: its reconciler has undone everything it stood for.
    pub fn forget(&self, kind: Kind, name: &str, uid: u64) -> Result<()> {
        {
            let mut version = self.writer.lock();
            let Some(object) = self.get(kind, name)?.filter(|o| o.metadata.uid == uid) else { return Ok(()) };
            let mut batch = Batch::default();
            batch.delete(format::resource_key(kind, name));
            self.commit_as(&mut version, batch, Change::Deleted, object)?;
        }
        Ok(self.engine.sync()?)
    }

    fn count(&self, batch: &mut Batch, what: &str) -> Result<u64> {
        let key = format::counter_key(what);
        let last = match self.engine.get(&key)? {
            Some(bytes) => format::decode_number(&key, &bytes)?,
            None => 0,
        };
        let next = last + 1;
        batch.put(key, next.to_be_bytes().to_vec());
        Ok(next)
    }

    fn commit(&self, version: &mut u64, mut batch: Batch, mut object: Object) -> Result<Object> {
        object.metadata.resource_version = *version + 1;
        batch.put(format::resource_key(object.kind, object.name()), format::encode(&object));
        self.commit_as(version, batch, Change::Put, object)
    }

    /// Commits the batch as the next version and tells everybody. `version` is that of the held writer lock.
    fn commit_as(
        &self,
        version: &mut u64,
        mut batch: Batch,
        change: Change,
        object: Object,
    ) -> Result<Object> {
        let next = *version + 1;
        batch.put(Key::from_slice(format::VERSION_KEY), next.to_be_bytes().to_vec());
        self.engine.commit(&batch)?;
        *version = next;
        self.ring.lock().push(Event { version: next, change, object: Arc::new(object.clone()) });
        self.changed.send_replace(next);
        Ok(object)
    }
}
