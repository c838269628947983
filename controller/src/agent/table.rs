//! The mounts of this node, and who is changing one just now. Mounting and unmounting take their time, and only those who
//! want the same tenant wait for it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use address_map::ids::TenantId;
use parking_lot::{Condvar, Mutex};

use super::supervise::TenantMount;

/// How long one who wants to change a tenant's mounts waits for another who does.
const TURN_WITHIN: Duration = Duration::from_secs(30);

#[derive(Default)]
struct State {
    mounts: HashMap<TenantId, Arc<TenantMount>>,
    /// Tenants whose mounts somebody is changing.
    claimed: HashSet<TenantId>,
    /// Nothing is mounted any more.
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Table {
    state: Mutex<State>,
    freed: Condvar,
}

/// The right to change a tenant's mounts, until it is dropped.
pub(super) struct Claim<'a> {
    table: &'a Table,
    tenant: TenantId,
}

impl Table {
    /// Waits for the right to change the mounts of a tenant; `None` if somebody else has it for too long, or at the end.
    pub(super) fn claim(&self, tenant: TenantId) -> Option<Claim<'_>> {
        let mut state = self.state.lock();
        let taken = |state: &mut State| state.claimed.contains(&tenant);
        if self.freed.wait_while_for(&mut state, taken, TURN_WITHIN).timed_out() || state.closed {
            return None;
        }
        state.claimed.insert(tenant);
        Some(Claim { table: self, tenant })
    }

    /// The mount of a tenant.
    pub(super) fn get(&self, tenant: TenantId) -> Option<Arc<TenantMount>> {
        self.state.lock().mounts.get(&tenant).cloned()
    }

    /// All mounts.
    pub(super) fn all(&self) -> Vec<(TenantId, Arc<TenantMount>)> {
        self.state.lock().mounts.iter().map(|(tenant, mount)| (*tenant, mount.clone())).collect()
    }

    /// Whose mount is on a directory.
    pub(super) fn on(&self, dir: &Path) -> Option<TenantId> {
        let state = self.state.lock();
        let mut mounts = state.mounts.iter();
        mounts.find(|(_, mount)| mount.dirs.lock().iter().any(|d| d == dir)).map(|(tenant, _)| *tenant)
    }

    /// Takes all mounts out, for good; whoever is changing one is waited for.
    pub(super) fn drain(&self) -> (Vec<TenantId>, Vec<Arc<TenantMount>>) {
        let mut state = self.state.lock();
        state.closed = true;
        self.freed.wait_while_for(&mut state, |state| !state.claimed.is_empty(), TURN_WITHIN);
        state.mounts.drain().unzip()
    }
}

impl Claim<'_> {
    /// The mount of the tenant.
    pub(super) fn mount(&self) -> Option<Arc<TenantMount>> {
        self.table.get(self.tenant)
    }

    /// The tenant has this mount from now on.
    pub(super) fn insert(&self, mount: Arc<TenantMount>) {
        self.table.state.lock().mounts.insert(self.tenant, mount);
    }

    /// The tenant has no mount any more.
    pub(super) fn remove(&self) {
        self.table.state.lock().mounts.remove(&self.tenant);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.table.state.lock().claimed.remove(&self.tenant);
        self.table.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_changes_the_mounts_of_a_tenant_and_others_do_not_wait() {
        let table = Table::default();
        let claim = table.claim(TenantId(1)).unwrap();
        assert!(table.claim(TenantId(2)).is_some());
        assert!(table.all().is_empty() && table.on(Path::new("/")).is_none());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| table.claim(TenantId(1)).is_some());
            assert!(!second.is_finished());
            drop(claim);
            assert!(second.join().unwrap());
        });
        assert!(table.drain().0.is_empty() && table.claim(TenantId(1)).is_none());
    }
}
