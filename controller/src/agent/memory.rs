//! What a mount's VMDS may use of the node's memory, and what it is told to make of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use address_map::ids::MountEpoch;
use address_map::wire::SessionOptions;
use parking_lot::Mutex;

use super::cgroup::{Group, Parent};
use crate::resource::human_bytes;
use crate::services::MemoryBound;

/// How long the kernel may keep what it knows of a tenant's own tree: changes by others are pushed.
const TTL_MS: u64 = 3_600_000;
/// Memory for one more cached attribute and entry, with long names and a share of links and extended attributes, bytes.
const CACHE_ENTRY_BYTES: u64 = 2048;
/// Fewest and most attributes and entries kept by a VMDS.
const CACHE_ENTRIES: (u64, u64) = (1024, 1 << 20);
/// Memory for one more lease, that of the kernel included, bytes.
const LEASE_BYTES: u64 = 64 << 10;
/// Fewest and most descriptors kept by a VMDS.
const LEASES: (u64, u64) = (64, 4096);
/// The part of the memory that is for bytes of an object store on their way.
const BUFFERS_SHARE: u64 = 5;
/// Least and most of it, bytes.
const BUFFERS: (u64, u64) = (2 << 20, 48 << 20);

/// How a VMDS with this much memory, in bytes, serves. Half of it is for its cache; the rest is for requests on their
/// way, listings, leases, threads, the program and a successor beside it.
pub(super) fn session_options(memory: u64, metered: bool, pool_timeout: Duration) -> SessionOptions {
    let entries = (memory / 2 / CACHE_ENTRY_BYTES).clamp(CACHE_ENTRIES.0, CACHE_ENTRIES.1);
    let leases = (memory / LEASE_BYTES).clamp(LEASES.0, LEASES.1);
    let buffers = (memory / BUFFERS_SHARE).clamp(BUFFERS.0, BUFFERS.1);
    SessionOptions {
        ttl_ms: TTL_MS,
        cache_entries: entries as u32,
        leases_max: leases as u32,
        buffer_bytes: buffers as u32,
        metered,
        pool_timeout_ms: u64::try_from(pool_timeout.as_millis()).unwrap_or(u64::MAX),
    }
}

/// The bound of one mount.
pub(super) struct Bound {
    bytes: AtomicU64,
    group: Option<Group>,
    /// Processes that were ended because of it, as far as was looked.
    kills: AtomicU64,
    /// Why it does not hold.
    failed: Mutex<Option<String>>,
}

impl Bound {
    /// A bound of `bytes` for a mount. Without control groups it is none, and says so.
    pub(super) fn new(parent: &Result<Parent, String>, mount: MountEpoch, bytes: u64) -> Self {
        let group = match parent {
            Ok(parent) => parent.group(mount, bytes).map_err(|error| error.to_string()),
            Err(why) => Err(why.clone()),
        };
        let (group, failed) = match group {
            Ok(group) => (Some(group), None),
            Err(why) => (None, Some(why)),
        };
        let bound = Self { bytes: bytes.into(), group, kills: AtomicU64::new(0), failed: Mutex::new(failed) };
        bound.was_reached();
        bound
    }

    /// Its size, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Makes it another one, at once.
    pub(super) fn resize(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.try_to(|group| group.limit(bytes));
    }

    /// Holds for this process from now on. It has just been started and not yet been told anything by a tenant.
    pub(super) fn take_in(&self, pid: u32) {
        self.try_to(|group| group.enter(pid));
    }

    fn try_to(&self, change: impl FnOnce(&Group) -> std::io::Result<()>) {
        let Some(group) = &self.group else { return };
        if let Err(error) = change(group) {
            tracing::warn!(group = group.place(), %error, "cannot bound the memory of a VMDS");
            *self.failed.lock() = Some(error.to_string());
        }
    }

    /// Whether a process was ended because of it since this was last asked; if so, a sentence.
    pub(super) fn was_reached(&self) -> Option<String> {
        let kills = self.group.as_ref()?.kills().ok()?;
        let before = self.kills.swap(kills, Ordering::Relaxed);
        let most = human_bytes(self.bytes());
        (kills > before).then(|| format!("the VMDS was ended because it needed more memory than {most}"))
    }

    /// Whether it holds, and how.
    pub(super) fn describe(&self) -> MemoryBound {
        let most = human_bytes(self.bytes());
        match (self.failed.lock().as_ref(), &self.group) {
            (None, Some(group)) => Ok(format!("at most {most}, by the control group {}", group.place())),
            (why, _) => {
                let why = why.map_or("", String::as_str);
                Err(format!("{most} are wanted, but only its own limit of 1GiB holds: {why}"))
            }
        }
    }

    /// Ends it, when its last process has ended.
    pub(super) fn remove(&self) {
        if let Some(group) = &self.group {
            group.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_follow_the_bound() {
        let sizes = |memory| {
            let options = session_options(memory, false, Duration::from_secs(30));
            (options.cache_entries, options.leases_max)
        };
        assert_eq!(sizes(16 << 20), (4096, 256));
        assert_eq!(sizes(256 << 20), (65_536, 4096));
        assert_eq!(sizes(1 << 40), (1 << 20, 4096));
    }

    #[test]
    fn a_bound_that_does_not_hold_says_why() {
        let bound = Bound::new(&Err("no such thing here".to_owned()), MountEpoch(1), 32 << 20);
        bound.take_in(1);
        bound.resize(64 << 20);
        let why = bound.describe().unwrap_err();
        assert_eq!(why, "64MiB are wanted, but only its own limit of 1GiB holds: no such thing here");
        assert_eq!(bound.was_reached(), None);
    }
}
