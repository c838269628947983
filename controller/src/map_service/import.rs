//! Making objects of a bucket files of a tenant: see [`crate::import`].
//!
//! An import that lists all at once reads the bucket in the order of its keys and makes entries in transactions of
//! bounded size, each of which notes how far it has come: whatever ends it, the next one goes on there.

mod run;

use std::collections::HashSet;

use address_map::attr::{Caller, NewMode};
use address_map::error::{MapError, Refusal};
use address_map::ids::{Ino, PoolId, TenantId};
use address_map::map::Tree;
use address_map::name::Name;
use address_map::namespace::{adopt, create, lookup};
use address_map::record::{Adopted, Entry, Progress};
use address_map::shard::Txn;
use address_map::wire::Make;

use super::{PlaneServices, map_failed};
use crate::import::Own;
use crate::pool::ObjectStore;
use crate::pool::s3::{S3Settings, SEPARATOR};
use crate::services::{ImportOrder, ImportSummary, Listener, ServiceError};
use crate::session::Touched;
use run::Import;

/// Where an import is made.
struct Target {
    ino: Ino,
    adopted: Adopted,
    /// The directory around it, which has it since just now.
    appeared: Option<(Ino, Name)>,
    /// It was there, and has become another thing just now.
    became: bool,
}

impl PlaneServices {
    /// See [`crate::services::MapService::import`].
    pub(super) fn adopt(
        &self,
        order: &ImportOrder,
        tell: Listener<'_, ImportSummary>,
    ) -> Result<ImportSummary, ServiceError> {
        let prefix = order.prefix.trim_end_matches(SEPARATOR);
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}{SEPARATOR}") };
        let (id, store) = self.pool_with(&order.bucket, &prefix, order.pool)?;
        let own = Own::of(store.s3.settings(), &self.plane.pools.all());
        if own.has(&prefix) {
            return Err(ServiceError::Invalid(format!(
                "{prefix} is the directory in which VMDS keeps the objects of a tenant; it cannot be imported"
            )));
        }
        let tree = self.tree(order.tenant)?;
        let target = self.target(&tree, order, (id, &prefix))?;
        if let Some((parent, name)) = target.appeared.clone() {
            self.plane.tell_mounts(&tree, &[Touched::Entry { parent, name }]);
        }
        if target.became {
            // Somebody may know that something is not there.
            self.plane.forget_everything(&tree);
        }
        let done = match target.adopted.progress {
            Progress::Importing { .. } => {
                let _alone = Alone::with(&self.importing, (order.tenant, target.ino))?;
                Import::new(self, &tree, &store, target, own, tell).run()?
            }
            Progress::Unlisted | Progress::Complete => {
                ImportSummary { complete: true, ..ImportSummary::default() }
            }
        };
        self.plane.committer.wait_durable().map_err(map_failed)?;
        Ok(done)
    }

    /// The pool that has a bucket, and best those keys of it.
    fn pool_with(
        &self,
        bucket: &str,
        prefix: &str,
        wanted: Option<PoolId>,
    ) -> Result<(PoolId, ObjectStore), ServiceError> {
        let ids: Vec<PoolId> = self.pool_names.iter().map(|pool| *pool.key()).collect();
        let stores = ids.into_iter().filter(|id| wanted.is_none_or(|wanted| wanted == *id));
        let stores = stores.filter_map(|id| Some((id, self.plane.pools.open(id)?.store.clone()?)));
        let mut stores: Vec<_> = stores.filter(|(_, store)| store.s3.settings().bucket == bucket).collect();
        let endpoint = |settings: &S3Settings| settings.endpoint.url.clone();
        let endpoints: HashSet<_> = stores.iter().map(|(_, store)| endpoint(store.s3.settings())).collect();
        if endpoints.len() > 1 {
            return Err(ServiceError::Invalid(format!(
                "pools at {} endpoints have a bucket {bucket}; say which one is meant with --pool",
                endpoints.len()
            )));
        }
        let rank = |store: &ObjectStore| {
            let own = &store.s3.settings().prefix;
            if prefix.starts_with(own.as_str()) { own.len() + 1 } else { 0 }
        };
        stores.sort_by_key(|(id, store)| (std::cmp::Reverse(rank(store)), *id));
        stores.into_iter().next().ok_or_else(|| {
            ServiceError::NotFound(format!("no pool has the bucket {bucket}; add one with: vmdsctl pool add"))
        })
    }

    /// Makes the directory, or finds the one that is there.
    fn target(
        &self,
        tree: &Tree,
        order: &ImportOrder,
        (pool, prefix): (PoolId, &str),
    ) -> Result<Target, ServiceError> {
        let made = self.plane.with_listed(|| {
            tree.write(|txn| {
                let root = txn.need_inode(Ino::ROOT)?;
                let (uid, gid) = (order.uid.unwrap_or(root.uid), order.gid.unwrap_or(root.gid));
                let progress = match order.lazy {
                    true => Progress::Unlisted,
                    false => Progress::Importing { after: None },
                };
                let adopted =
                    Adopted { pool, prefix: prefix.to_owned(), uid, gid, mode: order.mode, progress };
                target(txn, order, adopted)
            })
        });
        let path = &order.path;
        made.map_err(|error| match error {
            MapError::Refused(Refusal::NotEmpty | Refusal::Exists) => ServiceError::Conflict(format!(
                "{path} is there and is not an empty directory; import into a directory of its own"
            )),
            MapError::Refused(Refusal::NotDirectory) => {
                ServiceError::Conflict(format!("a part of {path} is not a directory"))
            }
            MapError::Refused(Refusal::CrossesShare) => ServiceError::Invalid(format!(
                "{path} leads into a share from another tenant; import into the tenant that owns it"
            )),
            MapError::Refused(Refusal::Quota) => out_of_quota(&ImportSummary::default()),
            other => map_failed(other),
        })
    }
}

/// The same within a transaction.
fn target(txn: &mut Txn<'_>, order: &ImportOrder, adopted: Adopted) -> Result<Target, MapError> {
    let Some((parents, name)) = order.path.split_last() else {
        return existing(txn, Ino::ROOT, adopted);
    };
    let root = txn.need_inode(Ino::ROOT)?;
    let parent = create::create_directories(txn, parents, Caller { uid: root.uid, gid: root.gid })?;
    match lookup::entry(txn, parent, name) {
        Ok(Entry::Inode { ino, .. }) => existing(txn, ino, adopted),
        Ok(Entry::Injected { .. }) => Err(Refusal::CrossesShare.into()),
        Err(MapError::Refused(Refusal::NotFound)) => {
            let caller = Caller { uid: adopted.uid, gid: adopted.gid };
            let mode = NewMode::exactly(adopt::directory_mode(adopted.mode));
            let made = create::create(txn, parent, name, caller, mode, &Make::Directory, false)?;
            adopt::begin(txn, made.ino, &adopted)?;
            Ok(Target { ino: made.ino, adopted, appeared: Some((parent, name.clone())), became: false })
        }
        Err(error) => Err(error),
    }
}

/// The directory is there: it is empty, or the same was begun in it before.
fn existing(txn: &mut Txn<'_>, ino: Ino, adopted: Adopted) -> Result<Target, MapError> {
    match adopt::adopted(txn, ino)? {
        Some(before) if (before.pool, &before.prefix) == (adopted.pool, &adopted.prefix) => {
            Ok(Target { ino, adopted: before, appeared: None, became: false })
        }
        Some(_) => Err(Refusal::NotEmpty.into()),
        None => {
            adopt::begin(txn, ino, &adopted)?;
            Ok(Target { ino, adopted, appeared: None, became: true })
        }
    }
}

fn out_of_quota(so_far: &ImportSummary) -> ServiceError {
    ServiceError::Conflict(format!(
        "the tenant's quota is used up after {} files; what was imported stays: raise the quota and import again to go on, or remove the directory",
        so_far.files
    ))
}

/// Nobody else imports into the same directory.
struct Alone<'a>(&'a dashmap::DashSet<(TenantId, Ino)>, (TenantId, Ino));

impl<'a> Alone<'a> {
    fn with(all: &'a dashmap::DashSet<(TenantId, Ino)>, this: (TenantId, Ino)) -> Result<Self, ServiceError> {
        match all.insert(this) {
            true => Ok(Self(all, this)),
            false => Err(ServiceError::Busy("an import into this directory is being made".to_owned())),
        }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.remove(&self.1);
    }
}
