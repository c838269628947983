//! A transaction: reads that see their own writes, and one batch at the end.

use std::collections::BTreeMap;
use std::ops::Bound;

use bincode::Encode;

use super::{Records, Shard};
use crate::attr::Timestamp;
use crate::codec;
use crate::engine::{Batch, Value, Visit};
use crate::error::{MapError, Refusal, Result};
use crate::ids::{Ino, TenantId};
use crate::key::{self, Key};
use crate::record::{Inode, TenantRecord};

/// A running transaction on one tenant, see [`Shard::write`].
pub struct Txn<'a> {
    shard: &'a Shard,
    tenant: TenantId,
    now: Timestamp,
    changes: BTreeMap<Key, Option<Value>>,
    /// The tenant's record once it was asked for, and whether it has changed.
    head: Option<(TenantRecord, bool)>,
}

impl<'a> Txn<'a> {
    pub(super) fn new(shard: &'a Shard, tenant: TenantId, now: Timestamp) -> Self {
        Self { shard, tenant, now, changes: BTreeMap::new(), head: None }
    }

    pub(super) fn into_batch(mut self) -> Result<Batch> {
        if let Some((head, true)) = self.head.take() {
            self.put(key::tenant(self.tenant), &head);
        }
        let mut batch = Batch::default();
        for (key, change) in self.changes {
            match change {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        Ok(batch)
    }

    /// The time of this transaction: every record it touches carries the same one.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Writes a record.
    pub fn put<T: Encode>(&mut self, key: Key, record: &T) {
        self.changes.insert(key, Some(codec::encode(record).into()));
    }

    /// Removes a record; it need not exist.
    pub fn delete(&mut self, key: Key) {
        self.changes.insert(key, None);
    }

    /// Writes an inode.
    pub fn put_inode(&mut self, ino: Ino, inode: &Inode) {
        self.put(key::inode(self.tenant, ino), inode);
    }

    /// An inode that must exist.
    pub fn need_inode(&self, ino: Ino) -> Result<Inode> {
        Ok(self.inode(ino)?.ok_or(Refusal::NotFound)?)
    }

    /// The tenant's record, to be changed: it is written once, at the end.
    pub fn head(&mut self) -> Result<&mut TenantRecord> {
        if self.head.is_none() {
            let record = self.record(&key::tenant(self.tenant))?.ok_or(MapError::UnknownTenant)?;
            self.head = Some((record, false));
        }
        let (record, changed) = self.head.as_mut().expect("filled above");
        *changed = true;
        Ok(record)
    }

    /// Begins the tenant: there must be no record yet.
    pub(crate) fn begin_tenant(&mut self, record: TenantRecord) {
        self.head = Some((record, true));
    }

    /// Gives out an inode number and charges the quota for it.
    pub fn new_ino(&mut self) -> Result<Ino> {
        let head = self.head()?;
        if head.quota.inodes.is_some_and(|most| head.usage.inodes >= most) {
            return Err(Refusal::Quota.into());
        }
        if head.next_ino > Ino::MAX.0 {
            return Err(Refusal::NoSpace.into());
        }
        let ino = Ino(head.next_ino);
        head.next_ino += 1;
        head.usage.inodes += 1;
        Ok(ino)
    }

    /// Replaces the charge for a file's bytes. Growth beyond the quota is refused; shrinking never is.
    pub fn recharge(&mut self, before: u64, after: u64) -> Result<()> {
        if before == after {
            return Ok(());
        }
        let head = self.head()?;
        let bytes = head.usage.bytes.saturating_sub(before).saturating_add(after);
        if after > before && head.quota.bytes.is_some_and(|most| bytes > most) {
            return Err(Refusal::Quota.into());
        }
        head.usage.bytes = bytes;
        Ok(())
    }

    /// Replaces the charge for bytes that are in the pool already, whatever the quota says.
    pub fn recharge_fact(&mut self, before: u64, after: u64) -> Result<()> {
        let head = self.head()?;
        head.usage.bytes = head.usage.bytes.saturating_sub(before).saturating_add(after);
        Ok(())
    }
}

impl Records for Txn<'_> {
    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn value(&self, key: &Key) -> Result<Option<Value>> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => self.shard.cached_value(key),
        }
    }

    fn tenant_record(&self) -> Result<TenantRecord> {
        match &self.head {
            Some((record, _)) => Ok(*record),
            None => self.record(&key::tenant(self.tenant))?.ok_or(MapError::UnknownTenant),
        }
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        let upper = end.map_or(Bound::Unbounded, |end| Bound::Excluded(Key::from_slice(end)));
        let mut own = self.changes.range((Bound::Included(Key::from_slice(start)), upper)).peekable();
        let mut go_on = true;
        self.shard.engine.scan(start, end, &mut |key, value| {
            while let Some((own_key, change)) = own.next_if(|(own_key, _)| own_key.as_slice() < key) {
                if let Some(own_value) = change {
                    go_on = visit(own_key, own_value)?;
                    if !go_on {
                        return Ok(false);
                    }
                }
            }
            go_on = match own.next_if(|(own_key, _)| own_key.as_slice() == key) {
                None => visit(key, value)?,
                Some((_, Some(own_value))) => visit(key, own_value)?,
                Some((_, None)) => true,
            };
            Ok(go_on)
        })?;
        for (own_key, change) in own {
            if let (true, Some(own_value)) = (go_on, change) {
                go_on = visit(own_key, own_value)?;
            }
        }
        Ok(())
    }
}
