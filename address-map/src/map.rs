//! The address map of one process: its shards, and which tenant is on which.

use std::sync::Arc;

use dashmap::DashMap;

use crate::clock::Clock;
use crate::error::{MapError, Result};
use crate::ids::{ShardId, TenantId};
use crate::shard::{Shard, Txn, View};

/// Shards, tenants, and the clock of the map.
pub struct AddressMap {
    shards: Vec<Arc<Shard>>,
    tenants: DashMap<TenantId, Arc<Shard>>,
    clock: Arc<dyn Clock>,
}

impl AddressMap {
    /// A map over these shards; tenants are added as they become known.
    pub fn new(shards: Vec<Arc<Shard>>, clock: Arc<dyn Clock>) -> Self {
        Self { shards, tenants: DashMap::new(), clock }
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// All tenants known here.
    pub fn tenants(&self) -> Vec<TenantId> {
        let mut tenants: Vec<_> = self.tenants.iter().map(|entry| *entry.key()).collect();
        tenants.sort();
        tenants
    }

    /// Records that a tenant lives on a shard. Refused when the shard is not here.
    pub fn route(&self, tenant: TenantId, shard: ShardId) -> Result<Tree> {
        let shard = self.shards.iter().find(|s| s.id() == shard).ok_or(MapError::UnknownTenant)?;
        self.tenants.insert(tenant, shard.clone());
        self.tree(tenant)
    }

    /// Forgets a tenant that has been erased.
    pub fn unroute(&self, tenant: TenantId) {
        self.tenants.remove(&tenant);
    }

    /// The tree of a tenant.
    pub fn tree(&self, tenant: TenantId) -> Result<Tree> {
        let shard = self.tenants.get(&tenant).ok_or(MapError::UnknownTenant)?.clone();
        Ok(Tree { shard, tenant, clock: self.clock.clone() })
    }
}

/// One tenant's tree: what transactions run on.
#[derive(Clone)]
pub struct Tree {
    shard: Arc<Shard>,
    tenant: TenantId,
    clock: Arc<dyn Clock>,
}

impl Tree {
    /// Whose tree.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The shard it is on.
    pub fn shard(&self) -> &Arc<Shard> {
        &self.shard
    }

    /// Reads.
    pub fn view(&self) -> View<'_> {
        self.shard.view(self.tenant)
    }

    /// One transaction, at the clock's time.
    pub fn write<T>(&self, change: impl FnOnce(&mut Txn<'_>) -> Result<T>) -> Result<T> {
        self.shard.write(self.tenant, self.clock.timestamp(), change)
    }
}

/// The shard a new tenant goes to, by rendezvous hashing: of all shards the one that scores highest for it. The
/// choice is recorded, so that it holds when the number of shards changes.
pub fn place(tenant: TenantId, shards: u16) -> ShardId {
    let score = |shard: &u16| {
        let mut bytes = [0; 6];
        bytes[..4].copy_from_slice(&tenant.0.to_be_bytes());
        bytes[4..].copy_from_slice(&shard.to_be_bytes());
        siphasher::sip::SipHasher13::new().hash(&bytes)
    };
    ShardId((0..shards.max(1)).max_by_key(score).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_spread_over_shards_and_few_move_when_one_is_added() {
        let on = |shards| (0..1000).map(|t| place(TenantId(t), shards)).collect::<Vec<_>>();
        let (before, after) = (on(16), on(17));
        for shard in 0..16 {
            let tenants = before.iter().filter(|s| s.0 == shard).count();
            assert!((30..110).contains(&tenants), "shard {shard} has {tenants} of 1000 tenants");
        }
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert!((20..110).contains(&moved), "{moved} of 1000 tenants moved");
    }
}
