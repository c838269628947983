//! What the control plane asks of the address map: tenants, shares, locations, checks.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use address_map::attr::{Caller, FileKind};
use address_map::check;
use address_map::error::{MapError, Refusal};
use address_map::ids::{Ino, NodeId, PoolId, Slot, TenantId};
use address_map::map::Tree;
use address_map::name::LogicalPath;
use address_map::namespace::{create, extent, lookup, object, share, tenant};
use address_map::record::{Entry, Grant, Injection, Inode, Layout, ObjectRef, Usage};
use address_map::shard::Records;
use address_map::wire::Stale;

use crate::logging::chain;
use crate::resource::PoolSpec;
use crate::services::{
    CheckSummary, GlobalRange, GrantOrder, GrantOutcome, Located, MapService, PoolObserved, PoolService,
    Receipt, RevokeOrder, ServiceError, TenantSetup,
};
use crate::session::DataPlane;

/// Serves the control plane from the data plane's map and pools.
pub struct PlaneServices {
    plane: Arc<DataPlane>,
    pool_names: dashmap::DashMap<PoolId, String>,
}

impl PlaneServices {
    /// Services over a data plane.
    pub fn new(plane: Arc<DataPlane>) -> Self {
        Self { plane, pool_names: dashmap::DashMap::new() }
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
            let entry = lookup::entry(&at.0.view(), at.1, name).map_err(|_| not_found())?;
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
        let grant = self.plane.grants.find(&owner, injection.share)?.ok_or(Refusal::NotFound)?;
        match grant.is_live(grantee.tenant(), self.plane.map.clock().timestamp()) {
            true => Ok((owner, grant.root)),
            false => Err(Refusal::NotFound.into()),
        }
    }

    fn range(&self, offset: u64, length: u64, object: &ObjectRef) -> Result<GlobalRange, ServiceError> {
        let pool = self.plane.pools.get(object.pool).map_err(internal)?;
        let name = self.pool_names.get(&object.pool).map(|name| name.clone()).unwrap_or_default();
        let path: PathBuf = pool.directory().join(&object.key);
        Ok(GlobalRange {
            offset,
            length,
            pool: name,
            key: object.key.clone(),
            path: Some(path),
            host: Some(pool.host().to_owned()),
        })
    }

    fn inject(&self, order: &GrantOrder, root: Ino, kind: FileKind) -> Result<Injection, MapError> {
        let grantee = self.plane.map.tree(order.grantee)?;
        let (parents, name) = order.target.split_last().ok_or(Refusal::Exists)?;
        grantee.write(|txn| {
            if let Some((_, there)) = share::injections(txn)?.into_iter().find(|(_, i)| i.share == order.id) {
                return Ok(there);
            }
            let owner = txn.need_inode(Ino::ROOT)?;
            let caller = Caller { uid: owner.uid, gid: owner.gid };
            let parent = create::create_directories(txn, parents, caller)?;
            let injection =
                Injection { share: order.id, owner: order.owner, root, parent, name: name.clone() };
            share::inject(txn, &injection, kind)?;
            Ok(injection)
        })
    }

    /// Tells the grantee's mounts that a name of theirs leads somewhere else now, and waits until they know.
    fn announce(&self, grantee: TenantId, slot: Option<Slot>, injection: &Injection) -> (usize, usize) {
        let sessions = self.plane.hub.sessions_of(grantee);
        let parent = NodeId::new(Slot::OWN, injection.parent);
        let mut stale = vec![Stale::Entry { parent, name: injection.name.clone() }];
        stale.extend(slot.map(Stale::Slot));
        let items: HashMap<_, _> = sessions.iter().map(|session| (session.id(), stale.clone())).collect();
        let told = items.len();
        (self.plane.hub.push_and_wait(items), told)
    }

    fn path_of(&self, tree: &Tree, injection: &Injection) -> Result<LogicalPath, MapError> {
        let mut names = vec![injection.name.clone()];
        let mut at = injection.parent;
        while at != Ino::ROOT {
            let parent = lookup::inode(&tree.view(), at)?.parent;
            names.push(lookup::name_of(&tree.view(), parent, at)?);
            at = parent;
        }
        names.reverse();
        Ok(LogicalPath::from_names(names))
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
        shareable(&self.tree(owner)?, path).map(drop)
    }

    fn grant(&self, order: &GrantOrder) -> Result<GrantOutcome, ServiceError> {
        let owner = self.tree(order.owner)?;
        let (root, kind) = shareable(&owner, &order.path)?;
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
            share::grant(txn, order.id, &grant).map(|()| Some(grant))
        });
        let Some(stored) = stored.map_err(map_failed)? else {
            return Err(ServiceError::Conflict("this share was revoked; grant a new one".to_owned()));
        };
        let root = stored.root;
        self.plane.grants.replace(order.owner, order.id, stored);
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
        let owner = self.tree(order.owner)?;
        // The owner's record first: from the moment it is visible every request is refused.
        let revoked = owner.write(|txn| share::revoke(txn, order.id)).map_err(map_failed)?;
        if let Some(grant) = revoked {
            self.plane.grants.replace(order.owner, order.id, grant);
        }
        let Ok(grantee) = self.plane.map.tree(order.grantee) else { return Ok(Receipt::default()) };
        let dropped = grantee.write(|txn| share::drop_injection(txn, order.id)).map_err(map_failed)?;
        self.plane.committer.wait_durable().map_err(map_failed)?;
        let Some((slot, injection)) = dropped else { return Ok(Receipt::default()) };
        let (forgot, told) = self.announce(order.grantee, Some(slot), &injection);
        let unreached = told.saturating_sub(forgot);
        Ok(Receipt {
            mounts_dropped: u32::try_from(forgot).unwrap_or(u32::MAX),
            mounts_unreached: (0..unreached).map(|_| crate::pool::this_host()).collect(),
            last_lease_ends: None,
        })
    }

    fn locate(&self, id: TenantId, path: &LogicalPath) -> Result<Located, ServiceError> {
        let (tree, ino) = self.follow(id, path)?;
        let inode: Inode = lookup::inode(&tree.view(), ino).map_err(map_failed)?;
        let size = self.plane.present(&inode).size;
        let ranges = match &inode.layout {
            Layout::None | Layout::Inline(_) => Vec::new(),
            Layout::Object(object) => vec![self.range(0, size, object)?],
            Layout::Extents => extent::pieces(&tree.view(), ino)
                .map_err(map_failed)?
                .iter()
                .map(|piece| self.range(piece.at, piece.extent.length, &piece.extent.object))
                .collect::<Result<_, _>>()?,
        };
        Ok(Located { kind: inode.kind, size, ranges })
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

impl PlaneServices {
    /// Something at the grantee is in the way: the grant is taken back, as nobody can use it.
    fn not_injected(&self, order: &GrantOrder, error: &MapError) -> Result<GrantOutcome, ServiceError> {
        let undo = RevokeOrder { id: order.id, owner: order.owner, grantee: order.grantee };
        self.revoke(&undo)?;
        match error.refusal() {
            Refusal::Exists => Ok(GrantOutcome::NameTaken),
            Refusal::Io => Err(ServiceError::Unavailable(chain(error))),
            refusal => Ok(GrantOutcome::Refused(format!("{}: {refusal}", order.target))),
        }
    }
}

impl PoolService for PlaneServices {
    fn ensure_pool(&self, id: PoolId, name: &str, spec: &PoolSpec) -> Result<PoolObserved, ServiceError> {
        let path = &spec.posix.path;
        let host = spec.posix.host.clone().unwrap_or_else(|| crate::pool::this_host());
        let pool = self.plane.pools.ensure(id, path.clone(), host).map_err(|error| {
            let dir = path.display();
            match error.kind() {
                std::io::ErrorKind::NotFound => {
                    ServiceError::Invalid(format!("the pool directory {dir} does not exist; make it first"))
                }
                _ => ServiceError::Invalid(format!("the pool directory {dir} is not writable: {error}")),
            }
        })?;
        self.pool_names.insert(id, name.to_owned());
        let space = pool.space().map_err(internal)?;
        Ok(PoolObserved { bytes_total: space.total, bytes_free: space.free })
    }

    fn remove_pool(&self, id: PoolId) -> Result<(), ServiceError> {
        self.plane.pools.remove(id);
        self.pool_names.remove(&id);
        Ok(())
    }
}

/// What a path of the owner leads to, if it can be shared.
fn shareable(owner: &Tree, path: &LogicalPath) -> Result<(Ino, FileKind), ServiceError> {
    let (_, entry) = lookup::walk(&owner.view(), path.names()).map_err(|error| match error.refusal() {
        Refusal::CrossesShare => not_ones_own(path),
        _ => ServiceError::NotFound(format!("there is no {path}")),
    })?;
    match entry {
        Entry::Inode { ino, kind: kind @ (FileKind::File | FileKind::Directory) } => Ok((ino, kind)),
        Entry::Inode { .. } => {
            Err(ServiceError::Invalid(format!("{path} is neither a file nor a directory")))
        }
        Entry::Injected { .. } => Err(not_ones_own(path)),
    }
}

fn not_ones_own(path: &LogicalPath) -> ServiceError {
    ServiceError::Invalid(format!("{path} belongs to a share from another tenant and cannot be shared on"))
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
