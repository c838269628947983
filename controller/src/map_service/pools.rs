//! What the control plane asks of pools: opened, looked at, closed.

use std::io;
use std::path::{Path, PathBuf};

use address_map::ids::PoolId;
use address_map::namespace::audit;

use super::disk_cache::cache_status;
use super::{PlaneServices, internal, map_failed};
use crate::pool::s3::{S3Error, S3Pool, S3Settings};
use crate::pool::{ObjectStore, this_host};
use crate::resource::{Pool, PoolSpec, PosixSpec, Resource, S3Spec};
use crate::services::{
    Listener, PoolCheckEvent, PoolCheckOrder, PoolCheckSummary, PoolObserved, PoolService, ServiceError,
};

impl PlaneServices {
    /// The name of another pool one of whose directories is this one, or holds it, or lies in it.
    fn overlapping_pool(&self, id: PoolId, path: &Path) -> Option<String> {
        // What cannot be resolved cannot be opened either, and is refused for that.
        let wanted = path.canonicalize().ok()?;
        let others = self.pool_names.iter().filter(|entry| *entry.key() != id);
        others
            .flat_map(|entry| {
                let directories = self.directories(*entry.key()).into_iter();
                directories.map(move |directory| (directory, entry.value().clone()))
            })
            .find(|(directory, _)| {
                let there = directory.canonicalize().unwrap_or_else(|_| directory.clone());
                there.starts_with(&wanted) || wanted.starts_with(&there)
            })
            .map(|(_, name)| name)
    }

    /// The directories of a pool: that of its files, and that of its disk cache.
    fn directories(&self, id: PoolId) -> Vec<PathBuf> {
        let Some(pool) = self.plane.pools.open(id) else { return Vec::new() };
        let cache = pool.store.as_ref().and_then(|store| store.cache.as_ref());
        let cache = cache.map(|cache| cache.directory().to_owned());
        cache.into_iter().chain([pool.files.directory().to_owned()]).collect()
    }

    pub(super) fn refuse_overlap(&self, id: PoolId, path: &Path) -> Result<(), ServiceError> {
        let Some(other) = self.overlapping_pool(id, path) else { return Ok(()) };
        let dir = path.display();
        Err(ServiceError::Conflict(format!(
            "the directory {dir} and that of pool '{other}' lie in one another; two pools need two directories"
        )))
    }

    fn ensure_posix(&self, id: PoolId, spec: &PosixSpec) -> Result<PoolObserved, ServiceError> {
        let path = &spec.path;
        self.refuse_overlap(id, path)?;
        let host = spec.host.clone().unwrap_or_else(crate::pool::this_host);
        let pool = self.plane.pools.ensure(id, path.clone(), host, None).map_err(|error| {
            let dir = path.display();
            match error.kind() {
                io::ErrorKind::NotFound => {
                    ServiceError::Invalid(format!("the pool directory {dir} does not exist; make it first"))
                }
                _ => ServiceError::Invalid(format!("the pool directory {dir} is not writable: {error}")),
            }
        })?;
        let space = pool.space().map_err(internal)?;
        Ok(PoolObserved {
            bytes_total: Some(space.total),
            bytes_free: Some(space.free),
            ..PoolObserved::default()
        })
    }

    /// Opens and probes a bucket; one that is open as it is wanted is only asked whether it still answers.
    fn ensure_s3(&self, id: PoolId, name: &str, spec: &S3Spec) -> Result<PoolObserved, ServiceError> {
        let settings = self.s3_settings(name, spec)?;
        self.refuse_same_objects(id, &settings)?;
        let before = self.store(id);
        let open = before.clone().filter(|store| *store.s3.settings() == settings);
        let mut store = match open {
            Some(store) => store,
            None => self.store_at(id, settings)?,
        };
        let problem = match self.with_cache(id, name, before.as_ref(), &mut store) {
            // Its files are in the bucket: who uses it must not wait for a disk.
            Err(error) if before.is_some() => Some(error.to_string()),
            given => given.map(|()| None)?,
        };
        match store.s3.is_probed() {
            true => store.runtime.wait_for(store.s3.check()),
            false => store.runtime.wait_for(store.s3.probe()).map(drop),
        }
        .map_err(s3_failed)?;
        let s3 = store.s3.capabilities().map(|can| (*can).clone());
        let disk_cache = cache_status(&store, problem);
        let wanted = store.s3.settings().cache.clone();
        self.open_staging(id, store)?;
        if let Some(gone) = before.and_then(|store| store.cache)
            && wanted.is_none_or(|wanted| wanted.directory != gone.directory())
        {
            self.end_cache(name, &gone);
        }
        Ok(PoolObserved { s3, disk_cache, ..PoolObserved::default() })
    }

    /// Opens a pool as it was before this controller was started. A bucket is not asked for anything: whoever uses it
    /// already must not wait for an endpoint that is slow today; the reconciler probes it soon.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn reopen_pool(&self, id: PoolId, name: &str, pool: &Resource<Pool>) -> Result<(), ServiceError> {
        let (PoolSpec::S3(spec), Some(known)) = (&pool.spec, &pool.status.s3) else {
            return self.ensure_pool(id, name, &pool.spec).map(drop);
        };
        let settings = self.s3_settings(name, spec)?;
        self.refuse_same_objects(id, &settings)?;
        let mut store = self.store_at(id, settings)?;
        store.s3.assume(known.clone());
        if let Err(error) = self.with_cache(id, name, None, &mut store) {
            // Its files are in the bucket; the reconciler says what is the matter.
            tracing::warn!(pool = name, %error, "a pool is used without its disk cache");
        }
        self.open_staging(id, store)?;
        self.pool_names.insert(id, name.to_owned());
        Ok(())
    }

    /// The object store of a pool that is open.
    fn store(&self, id: PoolId) -> Option<ObjectStore> {
        self.plane.pools.open(id)?.store.clone()
    }

    fn store_at(&self, id: PoolId, settings: S3Settings) -> Result<ObjectStore, ServiceError> {
        let s3 = S3Pool::open(settings).map_err(s3_failed)?;
        self.refuse_overlap(id, s3.staging())?;
        Ok(ObjectStore { s3, runtime: self.plane.pools.runtime().map_err(internal)?, cache: None })
    }

    /// Opens the directory for what is being written, and with it the pool.
    fn open_staging(&self, id: PoolId, store: ObjectStore) -> Result<(), ServiceError> {
        let directory = store.s3.staging().to_owned();
        self.plane.pools.ensure(id, directory, this_host(), Some(store)).map(drop).map_err(internal)
    }

    fn s3_settings(&self, name: &str, spec: &S3Spec) -> Result<S3Settings, ServiceError> {
        let patience = self.plane.pools.patience();
        S3Settings::new(spec, self.staging.join(name), patience).map_err(s3_failed)
    }

    /// Two pools in one another would sweep away each other's objects.
    fn refuse_same_objects(&self, id: PoolId, wanted: &S3Settings) -> Result<(), ServiceError> {
        let others = self.pool_names.iter().filter(|other| *other.key() != id);
        let same = others.into_iter().find(|other| {
            let Some(store) = self.store(*other.key()) else { return false };
            let there = store.s3.settings();
            (&there.endpoint.url, &there.bucket) == (&wanted.endpoint.url, &wanted.bucket)
                && (there.prefix.starts_with(&wanted.prefix) || wanted.prefix.starts_with(&there.prefix))
        });
        let Some(other) = same else { return Ok(()) };
        Err(ServiceError::Conflict(format!(
            "pool '{}' has the same objects of the bucket {}; two pools need two prefixes",
            other.value(),
            wanted.bucket
        )))
    }
}

impl PoolService for PlaneServices {
    fn ensure_pool(&self, id: PoolId, name: &str, spec: &PoolSpec) -> Result<PoolObserved, ServiceError> {
        let observed = match spec {
            PoolSpec::Posix(posix) => self.ensure_posix(id, posix),
            PoolSpec::S3(s3) => self.ensure_s3(id, name, s3),
        }?;
        self.pool_names.insert(id, name.to_owned());
        Ok(observed)
    }

    fn remove_pool(&self, id: PoolId) -> Result<(), ServiceError> {
        for tenant in self.plane.map.tenants() {
            let Ok(tree) = self.plane.map.tree(tenant) else { continue };
            if audit::uses(&tree.view(), id).map_err(map_failed)? {
                return Err(ServiceError::Busy(format!(
                    "files of tenant number {tenant} are in the pool, imported or from before; remove them first"
                )));
            }
        }
        let cache = self.store(id).and_then(|store| store.cache);
        self.plane.pools.remove(id);
        let name = self.pool_names.remove(&id).map(|(_, name)| name).unwrap_or_default();
        if let Some(cache) = cache {
            self.end_cache(&name, &cache);
        }
        self.plane.pools.disk_caches.forget(&name);
        Ok(())
    }

    fn check_pool(
        &self,
        order: &PoolCheckOrder,
        tell: Listener<'_, PoolCheckEvent>,
    ) -> Result<PoolCheckSummary, ServiceError> {
        self.compare_pool(order, tell)
    }
}

/// What is wrong with a bucket, for people.
pub(super) fn s3_failed(error: S3Error) -> ServiceError {
    if error.may_pass() {
        ServiceError::Unavailable(error.to_string())
    } else {
        ServiceError::Invalid(error.to_string())
    }
}
