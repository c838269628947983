//! Pools: the storage the map points into. Only this module touches tenants' bytes by path.

mod posix;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use address_map::attr::Timestamp;
use address_map::ids::PoolId;
use dashmap::DashMap;
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};

pub use posix::PosixPool;

/// The pools of this process, by number.
#[derive(Default)]
pub struct Pools {
    pools: DashMap<PoolId, Arc<PosixPool>>,
}

impl Pools {
    /// A pool that is known here.
    pub fn get(&self, id: PoolId) -> io::Result<Arc<PosixPool>> {
        self.pools
            .get(&id)
            .map(|pool| pool.clone())
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("pool {id} is not open here")))
    }

    /// Opens a pool, or checks again one that is open.
    pub fn ensure(&self, id: PoolId, directory: PathBuf, host: String) -> io::Result<Arc<PosixPool>> {
        if let Some(pool) = self.pools.get(&id)
            && pool.directory() == directory
            && pool.host() == host
        {
            return Ok(pool.clone());
        }
        let pool = Arc::new(PosixPool::open(directory, host)?);
        self.pools.insert(id, pool.clone());
        Ok(pool)
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
pub fn set_mtime(file: &OwnedFd, mtime: Timestamp) -> io::Result<()> {
    let last_modification = Timespec { tv_sec: mtime.sec, tv_nsec: i64::from(mtime.nsec) };
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access, last_modification })?)
}

/// The name of this host, as job managers know it.
pub fn this_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
