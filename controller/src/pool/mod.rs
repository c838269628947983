//! Pools: the storage the map points into. Only this module touches tenants' bytes by path.

mod backing;
pub mod cache;
mod deadline;
mod guarded;
mod posix;
pub mod s3;

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use address_map::attr::Timestamp;
use address_map::ids::PoolId;
use address_map::namespace::object;
use address_map::record::ObjectRef;
use dashmap::DashMap;
use parking_lot::{Condvar, Mutex};
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};

use crate::metrics::DiskCaches;
pub use backing::BackingFile;
use cache::DiskCache;
pub(crate) use deadline::Deadline;
pub use guarded::PosixPool;
pub use posix::Space;
use s3::{S3Pool, S3Runtime};

/// How long a call into a pool that is not local may take, unless told otherwise.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);
/// A controller this young may not have opened all its pools yet: VMDSes that outlived the one before ask at once.
const YOUNG_FOR: Duration = Duration::from_secs(10);
/// How long a young controller waits for a pool.
const OPENED_WITHIN: Duration = Duration::from_secs(5);

/// A pool.
pub struct Pool {
    /// Backing files: of a posix pool all there are, of an object store those that are being written.
    pub files: PosixPool,
    /// Where they go when they are written.
    pub store: Option<ObjectStore>,
}

impl Pool {
    /// Its space. An object store has no end that it would tell.
    pub fn space(&self) -> io::Result<Space> {
        const ENDLESS: u64 = 1 << 60;
        match &self.store {
            Some(_) => Ok(Space { total: ENDLESS, free: ENDLESS, inodes: ENDLESS, inodes_free: ENDLESS }),
            None => self.files.space(),
        }
    }

    /// Deletes everything below a key, which is that of a directory, however long it takes; it need not exist.
    pub fn remove_tree(&self, key: &str) -> io::Result<()> {
        let Some(store) = &self.store else { return self.files.remove_tree(key) };
        if let (Some(cache), Some(tenant)) = (&store.cache, object::parse_tenant_prefix(key)) {
            cache.remove_tenant(tenant)?;
        }
        let below = format!("{key}/");
        let mut after = below.clone();
        loop {
            let page = store.wait(async |s3| s3.list(Some(after.clone())).await)?;
            let keys = page.objects.into_iter().map(|object| object.key);
            let keys: Vec<String> = keys.take_while(|key| key.starts_with(&below)).collect();
            let Some(last) = keys.last().cloned() else { break };
            let gone = store.wait(async |s3| s3.delete(&keys).await)?;
            if gone.len() < keys.len() {
                return Err(io::Error::other("the object store keeps objects that are to be deleted"));
            }
            after = last;
        }
        self.files.remove_tree(key)
    }

    /// Deletes backing files and objects; answers which are gone.
    pub fn remove(&self, objects: Vec<ObjectRef>) -> Vec<ObjectRef> {
        let (stored, files): (Vec<_>, Vec<_>) = objects.into_iter().partition(object::is_stored);
        let mut gone: Vec<ObjectRef> = files
            .into_iter()
            .filter(|object| {
                let removed = self.files.remove_object(&object.key);
                removed.inspect_err(cannot_delete).is_ok()
            })
            .collect();
        if let (Some(store), Some(pool)) = (&self.store, stored.first().map(|object| object.pool)) {
            let keys: Vec<String> = stored.into_iter().map(|object| object.key).collect();
            match store.wait(async |s3| s3.delete(&keys).await) {
                Ok(keys) => gone.extend(keys.into_iter().map(|key| ObjectRef { pool, key })),
                Err(error) => cannot_delete(&error),
            }
        }
        gone
    }
}

fn cannot_delete(error: &io::Error) {
    tracing::warn!(error = error as &dyn std::error::Error, "cannot delete an object yet");
}

/// An object store behind a directory.
#[derive(Clone)]
pub struct ObjectStore {
    /// The store.
    pub s3: S3Pool,
    /// The threads that speak with it.
    pub runtime: S3Runtime,
    /// What was read from it, on a disk of this machine; `None`: nothing is kept.
    pub cache: Option<Arc<DiskCache>>,
}

impl ObjectStore {
    /// Whether it is the same store, with the same cache.
    fn is_as(&self, other: &Self) -> bool {
        let same_cache = match (&self.cache, &other.cache) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        same_cache && self.s3.settings() == other.s3.settings()
    }

    /// For how long an address that is given out leads to its object, at most.
    pub fn lease(&self) -> Duration {
        self.s3.settings().lease
    }

    /// Asks the store something and waits for the answer. Never to be called on a thread of a runtime.
    pub fn wait<T>(&self, ask: impl AsyncFnOnce(&S3Pool) -> Result<T, s3::S3Error>) -> io::Result<T> {
        Ok(self.runtime.wait_for(ask(&self.s3))?)
    }
}

/// The pools of this process, by number.
pub struct Pools {
    pools: DashMap<PoolId, Arc<Pool>>,
    /// Until when a pool that is not known may still come.
    young_until: Instant,
    /// Held while one is added, and while one is looked for in order to wait.
    opening: Mutex<()>,
    one_more: Condvar,
    remote: RemoteUse,
    /// The threads that speak with object stores; started with the first.
    runtime: Mutex<Option<S3Runtime>>,
    /// What their disk caches count.
    pub disk_caches: DiskCaches,
}

/// How pools are used that are not on a local file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteUse {
    /// How long a call may take.
    pub patience: Duration,
    /// Their files are passed through by the kernel, which waits for them itself, and without a deadline.
    pub passthrough: bool,
}

impl Default for RemoteUse {
    fn default() -> Self {
        Self { patience: DEFAULT_PATIENCE, passthrough: false }
    }
}

impl Default for Pools {
    fn default() -> Self {
        Self::new(RemoteUse::default())
    }
}

impl Pools {
    /// No pools yet; those that are not local are used as `remote` says.
    pub fn new(remote: RemoteUse) -> Self {
        Self::young_for(YOUNG_FOR, remote)
    }

    fn young_for(young: Duration, remote: RemoteUse) -> Self {
        Self {
            pools: DashMap::new(),
            young_until: Instant::now() + young,
            opening: Mutex::default(),
            one_more: Condvar::new(),
            remote,
            runtime: Mutex::default(),
            disk_caches: DiskCaches::default(),
        }
    }

    /// The threads that speak with object stores.
    pub fn runtime(&self) -> io::Result<S3Runtime> {
        let mut runtime = self.runtime.lock();
        match &*runtime {
            Some(started) => Ok(started.clone()),
            None => Ok(runtime.insert(S3Runtime::start()?).clone()),
        }
    }

    /// How long a call into a pool that is not local may take.
    pub fn patience(&self) -> Duration {
        self.remote.patience
    }

    /// A pool that is known here. Right after the start one that is not is waited for.
    pub fn get(&self, id: PoolId) -> io::Result<Arc<Pool>> {
        if let Some(pool) = self.pools.get(&id) {
            return Ok(pool.clone());
        }
        let deadline = self.young_until.min(Instant::now() + OPENED_WITHIN);
        let mut opening = self.opening.lock();
        loop {
            if let Some(pool) = self.pools.get(&id) {
                return Ok(pool.clone());
            }
            if self.one_more.wait_until(&mut opening, deadline).timed_out() {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("pool {id} is not open here")));
            }
        }
    }

    /// Opens a pool, or checks again one that is open. `store`: where written files go.
    pub fn ensure(
        &self,
        id: PoolId,
        directory: PathBuf,
        host: String,
        store: Option<ObjectStore>,
    ) -> io::Result<Arc<Pool>> {
        if let Some(pool) = self.pools.get(&id)
            && pool.files.directory() == directory
            && pool.files.host() == host
            && match (&pool.store, &store) {
                (Some(open), Some(wanted)) => open.is_as(wanted),
                (open, wanted) => open.is_none() && wanted.is_none(),
            }
        {
            return Ok(pool.clone());
        }
        let pool = Arc::new(Pool { files: PosixPool::open(directory, host, self.remote)?, store });
        let opening = self.opening.lock();
        self.pools.insert(id, pool.clone());
        drop(opening);
        self.one_more.notify_all();
        Ok(pool)
    }

    /// A pool that is open now.
    pub fn open(&self, id: PoolId) -> Option<Arc<Pool>> {
        self.pools.get(&id).map(|pool| pool.clone())
    }

    /// All pools known here.
    pub fn all(&self) -> Vec<Arc<Pool>> {
        self.pools.iter().map(|pool| pool.clone()).collect()
    }

    /// Closes a pool. Its bytes stay.
    pub fn remove(&self, id: PoolId) {
        self.pools.remove(&id);
    }
}

/// Sets the modification time of a backing file.
pub fn set_mtime(file: impl AsFd, mtime: Timestamp) -> io::Result<()> {
    let last_modification = Timespec { tv_sec: mtime.sec, tv_nsec: i64::from(mtime.nsec) };
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access, last_modification })?)
}

/// The name of this host, as job managers know it.
pub fn this_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_young_controller_waits_for_its_pools() {
        let (dir, pools) = (tempfile::tempdir().unwrap(), Pools::default());
        std::thread::scope(|scope| {
            let early = scope.spawn(|| pools.get(PoolId(1)));
            pools.ensure(PoolId(2), dir.path().to_owned(), "here".into(), None).unwrap();
            assert!(!early.is_finished(), "another pool is not that pool");
            pools.ensure(PoolId(1), dir.path().to_owned(), "here".into(), None).unwrap();
            early.join().unwrap().unwrap();
        });
    }

    #[test]
    fn later_an_unknown_pool_is_an_error_at_once() {
        let pools = Pools::young_for(Duration::ZERO, RemoteUse::default());
        let asked = Instant::now();
        assert_eq!(pools.get(PoolId(1)).err().unwrap().kind(), io::ErrorKind::NotFound);
        assert!(asked.elapsed() < OPENED_WITHIN);
    }
}
