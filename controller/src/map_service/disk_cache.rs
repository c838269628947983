//! Disk caches of pools: opened with their pool, told of, given up.

use std::path::Path;
use std::sync::Arc;

use address_map::ids::PoolId;

use super::PlaneServices;
use crate::pool::ObjectStore;
use crate::pool::cache::{CacheSettings, DiskCache};
use crate::resource::DiskCacheStatus;
use crate::services::ServiceError;

impl PlaneServices {
    /// Gives a store the disk cache that its settings ask for: the one it had `before`, or one that is opened.
    ///
    /// # Errors
    /// It cannot be opened; the store has none then.
    pub(super) fn with_cache(
        &self,
        id: PoolId,
        name: &str,
        before: Option<&ObjectStore>,
        store: &mut ObjectStore,
    ) -> Result<(), ServiceError> {
        store.cache = None;
        let Some(settings) = store.s3.settings().cache.clone() else { return Ok(()) };
        let open = before.and_then(|store| store.cache.clone());
        store.cache = match open.filter(|cache| *cache.settings() == settings && cache.is_in_place()) {
            Some(cache) => Some(cache),
            None => Some(self.open_cache(id, name, store.s3.staging(), settings)?),
        };
        Ok(())
    }

    fn open_cache(
        &self,
        id: PoolId,
        name: &str,
        staging: &Path,
        settings: CacheSettings,
    ) -> Result<Arc<DiskCache>, ServiceError> {
        self.refuse_overlap(id, &settings.directory)?;
        let counts = self.plane.pools.disk_caches.of(name);
        let cache = DiskCache::open(settings, counts).map_err(ServiceError::Invalid)?;
        // What did not exist lies somewhere now.
        self.refuse_overlap(id, cache.directory())?;
        if let (Ok(real), Ok(staging)) = (cache.directory().canonicalize(), staging.canonicalize())
            && (real.starts_with(&staging) || staging.starts_with(&real))
        {
            return Err(ServiceError::Conflict(format!(
                "the disk cache directory {} and the staging directory of the pool lie in one another; give another directory",
                cache.directory().display()
            )));
        }
        Ok(cache)
    }

    /// A cache is not used any more, and gives back what it takes.
    pub(super) fn end_cache(&self, name: &str, cache: &DiskCache) {
        if let Err(error) = cache.clear() {
            let (error, directory) = (&error as &dyn std::error::Error, cache.directory().display());
            tracing::warn!(error, pool = name, %directory, "files stay in a directory that was a disk cache");
        }
    }
}

/// What is told of the disk cache of a pool, if it is to have one. `problem`: why it has none.
pub(super) fn cache_status(store: &ObjectStore, problem: Option<String>) -> Option<DiskCacheStatus> {
    let bytes_max = store.s3.settings().cache.as_ref()?.bytes;
    let used = store.cache.as_ref().map(|cache| cache.usage()).unwrap_or_default();
    Some(DiskCacheStatus { bytes_used: used.bytes, bytes_max, objects: used.objects, problem })
}
