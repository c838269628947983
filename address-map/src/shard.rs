//! A shard: whole tenants on one engine, one writer at a time, a bounded cache of records in front.
//!
//! Reads never wait for the writer. A write runs a closure over a [`Txn`], which sees its own changes, and commits
//! everything the closure did in one batch, or nothing if it fails.

mod cache;
mod txn;

use std::sync::Arc;

use parking_lot::Mutex;

use crate::attr::Timestamp;
use crate::codec;
use crate::engine::{Batch, Engine, Value, Visit};
use crate::error::{MapError, Result};
use crate::ids::{Ino, ShardId, TenantId};
use crate::key::{self, Key};
use crate::record::{Entry, Inode, TenantRecord};

use cache::RecordCache;
pub use txn::Txn;

/// Reads of one tenant's records: what a [`View`] and a [`Txn`] have in common.
pub trait Records {
    /// Whose records.
    fn tenant(&self) -> TenantId;

    /// The bytes of a record.
    fn value(&self, key: &Key) -> Result<Option<Value>>;

    /// Calls `visit` for each record in `start..end`, in order, until it answers `false`.
    fn scan(&self, start: &[u8], end: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()>;

    /// A decoded record.
    fn record<T: bincode::Decode<()>>(&self, key: &Key) -> Result<Option<T>>
    where
        Self: Sized,
    {
        self.value(key)?.map(|value| decode(key, &value)).transpose()
    }

    /// The tenant's own record.
    fn tenant_record(&self) -> Result<TenantRecord>
    where
        Self: Sized,
    {
        self.record(&key::tenant(self.tenant()))?.ok_or(MapError::UnknownTenant)
    }

    /// An inode, if it exists.
    fn inode(&self, ino: Ino) -> Result<Option<Inode>>
    where
        Self: Sized,
    {
        self.record(&key::inode(self.tenant(), ino))
    }

    /// Where an entry of a directory leads, if the name exists.
    fn entry(&self, key: &Key) -> Result<Option<Entry>>
    where
        Self: Sized,
    {
        self.record(key)
    }

    /// Calls `visit` for each record whose key starts with `prefix`.
    fn scan_prefix(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        self.scan(prefix, key::after_prefix(prefix).as_deref(), visit)
    }
}

/// Decodes a stored value; damage is reported with the record's key.
pub fn decode<T: bincode::Decode<()>>(key: &[u8], value: &[u8]) -> Result<T> {
    codec::decode(value).map_err(|source| MapError::Corrupt {
        key: key.iter().map(|byte| format!("{byte:02x}")).collect(),
        source,
    })
}

/// A part of the address map with a single writer.
pub struct Shard {
    id: ShardId,
    engine: Arc<dyn Engine>,
    writer: Mutex<()>,
    cache: RecordCache,
}

impl Shard {
    /// A shard on `engine`, keeping about `cached_records` records in memory.
    pub fn new(id: ShardId, engine: Arc<dyn Engine>, cached_records: usize) -> Self {
        Self { id, engine, writer: Mutex::new(()), cache: RecordCache::new(cached_records) }
    }

    /// Its number.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The engine below.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Reads of one tenant.
    pub fn view(&self, tenant: TenantId) -> View<'_> {
        View { shard: self, tenant }
    }

    /// Runs `change` as one transaction at time `now`. Its changes are visible and survive the death of this
    /// process when this returns; nothing is changed if it fails.
    pub fn write<T>(
        &self,
        tenant: TenantId,
        now: Timestamp,
        change: impl FnOnce(&mut Txn<'_>) -> Result<T>,
    ) -> Result<T> {
        let _writer = self.writer.lock();
        let mut txn = Txn::new(self, tenant, now);
        let outcome = change(&mut txn)?;
        self.commit(&txn.into_batch()?)?;
        Ok(outcome)
    }

    /// Removes everything a tenant has, in batches of bounded size. Idempotent.
    pub fn erase(&self, tenant: TenantId) -> Result<()> {
        /// Records removed per transaction.
        const ERASE_BATCH: usize = 4096;
        let prefix = key::tenant_prefix(tenant);
        loop {
            let _writer = self.writer.lock();
            let mut batch = Batch::default();
            let mut found = 0;
            self.engine.scan(&prefix, key::after_prefix(&prefix).as_deref(), &mut |key, _| {
                batch.delete(Key::from_slice(key));
                found += 1;
                Ok(found < ERASE_BATCH)
            })?;
            if batch.is_empty() {
                return Ok(());
            }
            self.commit(&batch)?;
        }
    }

    fn commit(&self, batch: &Batch) -> Result<()> {
        if !batch.is_empty() {
            self.engine.commit(batch)?;
            self.cache.apply(batch.changes());
        }
        Ok(())
    }

    fn cached_value(&self, key: &Key) -> Result<Option<Value>> {
        if let Some(value) = self.cache.get(key) {
            return Ok(Some(value));
        }
        let version = self.cache.version();
        let value = self.engine.get(key)?;
        if let Some(value) = &value {
            self.cache.fill(key, value, version);
        }
        Ok(value)
    }
}

/// Reads of one tenant's records, each as of the moment it is made.
#[derive(Clone, Copy)]
pub struct View<'a> {
    shard: &'a Shard,
    tenant: TenantId,
}

impl Records for View<'_> {
    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn value(&self, key: &Key) -> Result<Option<Value>> {
        self.shard.cached_value(key)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        self.shard.engine.scan(start, end, visit)
    }
}
