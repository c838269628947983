//! What the control plane asks of the address map: tenants, shares, locations, checks.

mod disk_cache;
mod import;
mod pool_check;
mod pools;
mod sharing;

use std::path::PathBuf;
use std::sync::Arc;

use address_map::check;
use address_map::error::{MapError, Refusal};
use address_map::ids::{Ino, PoolId, ShareId, Slot, TenantId};
use address_map::map::Tree;
use address_map::name::LogicalPath;
use address_map::namespace::{lookup, object, share, tenant};
use address_map::record::{Entry, Grant, Inode, Layout, ObjectRef, Usage};
use address_map::shard::Records;

use crate::services::{
    CheckSummary, DroppedShare, GlobalRange, GrantOrder, GrantOutcome, ImportOrder, ImportSummary, Listener,
    Located, MapService, Receipt, RevokeOrder, ServiceError, TenantSetup,
};
use crate::session::DataPlane;
use crate::share::Granted;

/// Serves the control plane from the data plane's map and pools.
pub struct PlaneServices {
    plane: Arc<DataPlane>,
    pool_names: dashmap::DashMap<PoolId, String>,
    /// Where the staging directories of pools are that name none.
    staging: PathBuf,
    /// Imports that are being made, by the directories they are made in.
    importing: dashmap::DashSet<(TenantId, Ino)>,
}

impl PlaneServices {
    /// Services over a data plane. `staging`: where the staging directories of pools are that name none.
    pub fn new(plane: Arc<DataPlane>, staging: PathBuf) -> Self {
        let (pool_names, importing) = (dashmap::DashMap::new(), dashmap::DashSet::new());
        Self { plane, pool_names, staging, importing }
    }

    fn tree(&self, id: TenantId) -> Result<Tree, ServiceError> {
        self.plane
            .map
            .tree(id)
            .map_err(|_| ServiceError::NotFound(format!("there is no tenant number {id} here")))
    }

    /// The tree and inode a path of a tenant leads to; through a share, those of the owner.
    fn follow(&self, id: TenantId, path: &LogicalPath) -> Result<(Tree, Ino), ServiceError> {
        let tree = self.tree(id)?;
        let not_found = || ServiceError::NotFound(format!("there is no {path}"));
        let mut at = (tree.clone(), Ino::ROOT);
        for name in path.names() {
            let found = self.plane.with_listed(|| lookup::entry(&at.0.view(), at.1, name));
            let entry = found.map_err(|_| not_found())?;
            at = match entry {
                Entry::Inode { ino, .. } => (at.0, ino),
                Entry::Injected { slot, .. } if at.0.tenant() == id => {
                    self.through_share(&tree, slot).map_err(|_| not_found())?
                }
                Entry::Injected { .. } => return Err(not_found()),
            };
        }
        Ok(at)
    }

    fn through_share(&self, grantee: &Tree, slot: Slot) -> Result<(Tree, Ino), MapError> {
        let injection = share::injection(&grantee.view(), slot)?.ok_or(Refusal::NotFound)?;
        let owner = self.plane.map.tree(injection.owner)?;
        let granted = self.plane.grants.find(&owner, injection.share)?.ok_or(Refusal::NotFound)?;
        match granted.grant.is_live(grantee.tenant(), self.plane.map.clock().timestamp()) {
            true => Ok((owner, granted.grant.root)),
            false => Err(Refusal::NotFound.into()),
        }
    }

    /// Where the bytes of a file of one piece are; of a file of an object store, once they are there.
    fn ranges(
        &self,
        tree: &Tree,
        ino: Ino,
        inode: &Inode,
        size: u64,
    ) -> Result<Vec<GlobalRange>, ServiceError> {
        let stored = self.plane.object_of(tree, ino, inode).map_err(map_failed)?;
        match (stored, &inode.layout) {
            (Some(stored), _) => Ok(vec![self.range(0, stored.size, &stored.object)?]),
            (None, Layout::Object(object)) => Ok(vec![self.range(0, size, object)?]),
            (None, _) => Ok(Vec::new()),
        }
    }

    fn range(&self, offset: u64, length: u64, object: &ObjectRef) -> Result<GlobalRange, ServiceError> {
        let pool = self.plane.pools.get(object.pool).map_err(internal)?;
        let name = self.pool_names.get(&object.pool).map(|name| name.clone()).unwrap_or_default();
        // What is in a bucket is in no file of this machine.
        let in_bucket = object::is_stored(object) || object::adopted_key(object).is_some();
        let path = (!in_bucket).then(|| pool.files.directory().join(&object.key));
        Ok(GlobalRange {
            offset,
            length,
            pool: name,
            key: object.key.clone(),
            host: path.is_some().then(|| pool.files.host().to_owned()),
            path,
        })
    }
}

impl MapService for PlaneServices {
    fn ensure_tenant(&self, setup: &TenantSetup) -> Result<(), ServiceError> {
        let tree = self.plane.map.route(setup.id, setup.shard).map_err(|_| {
            ServiceError::Unavailable(format!(
                "tenant {} lives on shard {}, which is not served here",
                setup.name, setup.shard
            ))
        })?;
        let new = tenant::NewTenant {
            pool: setup.pool,
            quota: setup.quota,
            uid: setup.root_uid,
            gid: setup.root_uid,
            mode: setup.root_mode,
            name_key: random_key()?,
        };
        tree.write(|txn| tenant::ensure(txn, &new)).map_err(map_failed)?;
        self.plane.purge_orphans(&tree).map_err(map_failed)
    }

    fn remove_tenant(&self, id: TenantId) -> Result<(), ServiceError> {
        let Ok(tree) = self.plane.map.tree(id) else { return Ok(()) };
        let key = object::tenant_prefix(id);
        for pool in self.plane.pools.all() {
            pool.remove_tree(&key).map_err(internal)?;
        }
        tree.shard().erase(id).map_err(map_failed)?;
        self.plane.map.unroute(id);
        Ok(())
    }

    fn usage(&self, id: TenantId) -> Result<Usage, ServiceError> {
        Ok(self.tree(id)?.view().tenant_record().map_err(map_failed)?.usage)
    }

    fn shareable(&self, owner: TenantId, path: &LogicalPath) -> Result<(), ServiceError> {
        self.shareable_at(&self.tree(owner)?, path).map(drop)
    }

    fn grant(&self, order: &GrantOrder) -> Result<GrantOutcome, ServiceError> {
        let owner = self.tree(order.owner)?;
        let (root, kind) = self.shareable_at(&owner, &order.path)?;
        if order.owner == order.grantee {
            return Err(ServiceError::Invalid("a tenant cannot share with itself".to_owned()));
        }
        let grant = Grant {
            root,
            grantee: order.grantee,
            rights: order.rights,
            expires: order.expires.map(Into::into),
            revoked: false,
        };
        let stored = owner.write(|txn| {
            // What was shared once stays what is shared, wherever the owner has moved it since.
            let grant = match share::find_grant(txn, order.id)? {
                Some(before) if before.revoked => return Ok(None),
                Some(before) => Grant { root: before.root, ..grant },
                None => grant,
            };
            share::limit_leases(txn, order.id, order.leases);
            share::grant(txn, order.id, &grant).map(|()| Some(grant))
        });
        let Some(stored) = stored.map_err(map_failed)? else {
            return Err(ServiceError::Conflict("this share was revoked; grant a new one".to_owned()));
        };
        let root = stored.root;
        let granted = Granted { grant: stored, leases: order.leases };
        self.plane.grants.replace(order.owner, order.id, granted);
        let injection = match self.inject(order, root, kind) {
            Ok(injection) => injection,
            Err(error) => return self.not_injected(order, &error),
        };
        self.plane.committer.wait_durable().map_err(map_failed)?;
        self.announce(order.grantee, None, &injection);
        let grantee = self.tree(order.grantee)?;
        Ok(GrantOutcome::Granted(self.path_of(&grantee, &injection).map_err(map_failed)?))
    }

    fn revoke(&self, order: &RevokeOrder) -> Result<Receipt, ServiceError> {
        self.take_back(order)
    }

    fn is_injected(&self, grantee: TenantId, id: ShareId) -> Result<bool, ServiceError> {
        let found = share::injections(&self.tree(grantee)?.view()).map_err(map_failed)?;
        Ok(found.iter().any(|(_, injection)| injection.share == id))
    }

    fn drop_share(&self, grantee: TenantId, path: &LogicalPath) -> Result<DroppedShare, ServiceError> {
        self.drop_from_tree(grantee, path)
    }

    fn locate(&self, id: TenantId, path: &LogicalPath) -> Result<Located, ServiceError> {
        let (tree, ino) = self.follow(id, path)?;
        let inode: Inode = lookup::inode(&tree.view(), ino).map_err(map_failed)?;
        let size = self.plane.present((tree.tenant(), ino), &inode).size;
        let ranges = match &inode.layout {
            Layout::None | Layout::Inline(_) | Layout::Adopted(_) => Vec::new(),
            Layout::Object(_) | Layout::Small { .. } | Layout::Stored(_) => {
                self.ranges(&tree, ino, &inode, size)?
            }
            Layout::Retired(never) => match *never {},
        };
        Ok(Located { kind: inode.kind, size, ranges })
    }

    fn import(
        &self,
        order: &ImportOrder,
        tell: Listener<'_, ImportSummary>,
    ) -> Result<ImportSummary, ServiceError> {
        self.adopt(order, tell)
    }

    fn check(&self, id: Option<TenantId>) -> Result<CheckSummary, ServiceError> {
        let tenants = id.map_or_else(|| self.plane.map.tenants(), |id| vec![id]);
        let mut summary = CheckSummary::default();
        for tenant in tenants {
            let report = check::check(&self.tree(tenant)?.view()).map_err(map_failed)?;
            summary.tenants += 1;
            summary.inodes += report.inodes;
            summary.entries += report.entries;
            summary
                .problems
                .extend(report.problems.into_iter().map(|problem| format!("tenant {tenant}: {problem}")));
            if report.more_problems > 0 {
                summary.problems.push(format!("tenant {tenant}: and {} more", report.more_problems));
            }
        }
        Ok(summary)
    }
}

fn random_key() -> Result<u128, ServiceError> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| internal(error.into()))?;
    Ok(u128::from_le_bytes(bytes))
}

fn map_failed(error: MapError) -> ServiceError {
    match error {
        MapError::Refused(refusal) => ServiceError::Conflict(refusal.to_string()),
        other => ServiceError::Internal(Box::new(other)),
    }
}

fn internal(error: std::io::Error) -> ServiceError {
    ServiceError::Internal(Box::new(error))
}
