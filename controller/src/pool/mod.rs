//! Pools: the storage the map points into. Only this module touches tenants' bytes by path.

mod backing;
mod deadline;
mod guarded;
mod posix;

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use address_map::attr::Timestamp;
use address_map::ids::PoolId;
use dashmap::DashMap;
use parking_lot::{Condvar, Mutex};
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};

pub use backing::BackingFile;
pub(crate) use deadline::Deadline;
pub use guarded::PosixPool;

/// How long a call into a pool that is not local may take, unless told otherwise.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);
/// A controller this young may not have opened all its pools yet: VMDSes that outlived the one before ask at once.
const YOUNG_FOR: Duration = Duration::from_secs(10);
/// How long a young controller waits for a pool.
const OPENED_WITHIN: Duration = Duration::from_secs(5);

/// The pools of this process, by number.
pub struct Pools {
    pools: DashMap<PoolId, Arc<PosixPool>>,
    /// Until when a pool that is not known may still come.
    young_until: Instant,
    /// Held while one is added, and while one is looked for in order to wait.
    opening: Mutex<()>,
    one_more: Condvar,
    remote: RemoteUse,
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
        }
    }

    /// How long a call into a pool that is not local may take.
    pub fn patience(&self) -> Duration {
        self.remote.patience
    }

    /// A pool that is known here. Right after the start one that is not is waited for.
    pub fn get(&self, id: PoolId) -> io::Result<Arc<PosixPool>> {
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

    /// Opens a pool, or checks again one that is open.
    pub fn ensure(&self, id: PoolId, directory: PathBuf, host: String) -> io::Result<Arc<PosixPool>> {
        if let Some(pool) = self.pools.get(&id)
            && pool.directory() == directory
            && pool.host() == host
        {
            return Ok(pool.clone());
        }
        let pool = Arc::new(PosixPool::open(directory, host, self.remote)?);
        let opening = self.opening.lock();
        self.pools.insert(id, pool.clone());
        drop(opening);
        self.one_more.notify_all();
        Ok(pool)
    }

    /// A pool that is open now.
    pub fn open(&self, id: PoolId) -> Option<Arc<PosixPool>> {
        self.pools.get(&id).map(|pool| pool.clone())
    }

    /// All pools known here.
    pub fn all(&self) -> Vec<Arc<PosixPool>> {
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
            pools.ensure(PoolId(2), dir.path().to_owned(), "here".into()).unwrap();
            assert!(!early.is_finished(), "another pool is not that pool");
            pools.ensure(PoolId(1), dir.path().to_owned(), "here".into()).unwrap();
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
