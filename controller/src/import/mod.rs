//! Objects of a bucket that were there before, as files of a tenant: their keys as paths, and what of a bucket is not to
//! be taken for somebody's files.

pub(crate) mod names;

use std::sync::Arc;

use address_map::ids::PoolId;
use address_map::namespace::adopt::New;
use address_map::namespace::object;
use address_map::record::StoredObject;

use crate::pool::Pool;
use crate::pool::s3::{Found, S3Settings, SEPARATOR};

/// Entries made in one transaction: others of the shard wait meanwhile.
pub(crate) const BATCH: usize = 256;

/// The parts of a bucket that are VMDS's own.
pub(crate) struct Own {
    prefixes: Vec<String>,
}

impl Own {
    /// Those of the bucket that is meant by `settings`, of which each pool may have one.
    pub(crate) fn of(settings: &S3Settings, pools: &[Arc<Pool>]) -> Self {
        let stores = pools.iter().filter_map(|pool| pool.store.as_ref());
        let there = stores.map(|store| store.s3.settings()).filter(|other| {
            (&other.endpoint.url, &other.bucket) == (&settings.endpoint.url, &settings.bucket)
        });
        Self { prefixes: there.map(|settings| settings.prefix.clone()).collect() }
    }

    /// Whether a key, or all that begin with it, are VMDS's: in a directory of a tenant, or tried by a probe.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.prefixes.iter().filter_map(|prefix| key.strip_prefix(prefix.as_str())).any(|key| {
            let of_tenant = key.split_once(SEPARATOR).and_then(|(name, _)| object::parse_tenant_prefix(name));
            of_tenant.is_some() || key.starts_with(crate::pool::s3::PROBE_KEY)
        })
    }
}

/// An object that was found, as what it becomes.
pub(crate) fn file_of(pool: PoolId, found: &Found) -> New {
    let object = object::adopted_address(pool, &found.key);
    let stored = StoredObject { object, etag: found.stored.etag.clone(), size: found.stored.size };
    New::File { stored, modified: found.modified.into() }
}
