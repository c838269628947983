//! Services that only remember, and a store in memory, for the tests of reconcilers and of the API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use address_map::attr::FileKind;
use address_map::clock::{Clock, ManualClock};
use address_map::engine::MemoryEngine;
use address_map::ids::{PoolId, ShareId, TenantId};
use address_map::name::LogicalPath;
use address_map::record::Usage;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Context;
use crate::audit::Dropped;
use crate::metrics::{DiskCaches, Forgeries};
use crate::resource::{
    Kind, Manifest, Object, Pool, PoolSpec, Resource, ResourceType, S3Capabilities, Tenant, Truth,
};
use crate::services::*;
use crate::store::Store;

type Calls = Arc<Mutex<Vec<String>>>;

/// An address map without any map.
#[derive(Default)]
pub(crate) struct FakeMap {
    calls: Calls,
    pub(crate) tenants: Mutex<BTreeMap<TenantId, TenantSetup>>,
    pub(crate) usage: Mutex<BTreeMap<TenantId, Usage>>,
    grants: Mutex<BTreeMap<ShareId, LogicalPath>>,
    /// Paths that no share can have.
    pub(crate) taken: Mutex<Vec<String>>,
    pub(crate) not_shareable: Mutex<Option<String>>,
}

impl MapService for FakeMap {
    fn ensure_tenant(&self, setup: &TenantSetup) -> Result<(), ServiceError> {
        self.tenants.lock().insert(setup.id, setup.clone());
        Ok(())
    }

    fn remove_tenant(&self, id: TenantId) -> Result<(), ServiceError> {
        self.tenants.lock().remove(&id);
        Ok(())
    }

    fn usage(&self, id: TenantId) -> Result<Usage, ServiceError> {
        Ok(self.usage.lock().get(&id).copied().unwrap_or(Usage { bytes: 0, inodes: 1 }))
    }

    fn shareable(&self, _owner: TenantId, _path: &LogicalPath) -> Result<(), ServiceError> {
        self.not_shareable.lock().clone().map_or(Ok(()), |sentence| Err(ServiceError::NotFound(sentence)))
    }

    fn grant(&self, order: &GrantOrder) -> Result<GrantOutcome, ServiceError> {
        if self.taken.lock().contains(&order.target.to_string()) {
            return Ok(GrantOutcome::NameTaken);
        }
        self.calls.lock().push(format!("grant {} at {}", order.id, order.target));
        let mut grants = self.grants.lock();
        Ok(GrantOutcome::Granted(grants.entry(order.id).or_insert_with(|| order.target.clone()).clone()))
    }

    fn revoke(&self, order: &RevokeOrder) -> Result<Receipt, ServiceError> {
        let how = if order.hard { " hard" } else { "" };
        self.calls.lock().push(format!("revoke {}{how}", order.id));
        let mounts_dropped = if self.grants.lock().remove(&order.id).is_some() { 2 } else { 0 };
        Ok(Receipt { mounts_dropped, processes_replaced: u32::from(order.hard), ..Receipt::default() })
    }

    fn is_injected(&self, _grantee: TenantId, id: ShareId) -> Result<bool, ServiceError> {
        Ok(self.grants.lock().contains_key(&id))
    }

    fn drop_share(&self, _grantee: TenantId, path: &LogicalPath) -> Result<DroppedShare, ServiceError> {
        let mut grants = self.grants.lock();
        let id = grants.iter().find(|(_, at)| *at == path).map(|(id, _)| *id);
        let id = id.ok_or_else(|| ServiceError::Invalid(format!("{path} is not the root of a share")))?;
        grants.remove(&id);
        self.calls.lock().push(format!("drop {id}"));
        Ok(DroppedShare { id, mounts_dropped: 1 })
    }

    fn locate(&self, _id: TenantId, path: &LogicalPath) -> Result<Located, ServiceError> {
        if path.names().is_empty() {
            return Err(ServiceError::Invalid("/ is a directory; only files have an address".to_owned()));
        }
        let range = GlobalRange {
            offset: 0,
            length: 5,
            pool: "default".to_owned(),
            key: "k1".to_owned(),
            path: Some(PathBuf::from("/pool/k1")),
            host: None,
        };
        Ok(Located { kind: FileKind::File, size: 5, ranges: vec![range] })
    }

    fn import(
        &self,
        order: &ImportOrder,
        tell: Listener<'_, ImportSummary>,
    ) -> Result<ImportSummary, ServiceError> {
        let ImportOrder { bucket, prefix, path, mode, .. } = order;
        self.calls.lock().push(format!("import {bucket}/{prefix} at {path} mode {mode:o}"));
        tell(ImportSummary { files: 1, ..ImportSummary::default() });
        Ok(ImportSummary { files: 2, complete: true, ..ImportSummary::default() })
    }

    fn check(&self, id: Option<TenantId>) -> Result<CheckSummary, ServiceError> {
        let problems = if id.is_some() { vec!["inode 7 has no name".to_owned()] } else { Vec::new() };
        Ok(CheckSummary { tenants: 1, inodes: 2, entries: 1, problems })
    }
}

/// An agent that mounts nothing.
#[derive(Default)]
pub(crate) struct FakeMounts {
    calls: Calls,
    pub(crate) orders: Mutex<BTreeMap<PathBuf, MountOrder>>,
    pub(crate) busy: Mutex<Option<String>>,
    /// Why no VMDS lives long enough to serve.
    pub(crate) broken: Mutex<Option<String>>,
    upgrades: Mutex<BTreeMap<TenantId, u32>>,
    pub(crate) fails: Mutex<Option<String>>,
}

impl FakeMounts {
    fn seen(order: &MountOrder) -> MountObserved {
        MountObserved {
            tenant: order.tenant,
            dir: order.dir.clone(),
            pid: 4242,
            generation: 1,
            serving: true,
            since: SystemTime::UNIX_EPOCH,
            last_error: None,
            taken_over: false,
            memory: Ok("by a fake".to_owned()),
        }
    }
}

impl MountService for FakeMounts {
    fn mount(&self, order: &MountOrder) -> Result<MountObserved, ServiceError> {
        if let Some(sentence) = self.fails.lock().clone() {
            return Err(ServiceError::NotFound(sentence));
        }
        self.calls.lock().push(format!("mount {} {}", order.dir.display(), order.options));
        self.orders.lock().insert(order.dir.clone(), order.clone());
        Ok(Self::seen(order))
    }

    fn umount(&self, dir: &Path, lazy: bool) -> Result<(), ServiceError> {
        if let Some(sentence) = self.busy.lock().clone().filter(|_| !lazy) {
            return Err(ServiceError::Busy(sentence));
        }
        self.calls.lock().push(format!("umount {}", dir.display()));
        self.orders.lock().remove(dir);
        Ok(())
    }

    fn upgrade(&self, tenant: TenantId) -> Result<(), ServiceError> {
        if let Some(sentence) = self.fails.lock().clone() {
            return Err(ServiceError::Conflict(sentence));
        }
        if !self.orders.lock().values().any(|order| order.tenant == tenant) {
            return Err(ServiceError::NotFound("the tenant is not mounted on this node".to_owned()));
        }
        self.calls.lock().push(format!("upgrade {tenant}"));
        *self.upgrades.lock().entry(tenant).or_default() += 1;
        Ok(())
    }

    fn observe(&self) -> Vec<MountObserved> {
        let upgrades = self.upgrades.lock();
        let broken = self.broken.lock();
        let seen = |order: &MountOrder| {
            let times = upgrades.get(&order.tenant).copied().unwrap_or_default();
            let seen = Self::seen(order);
            let (pid, generation) = (seen.pid + times, seen.generation + times);
            MountObserved { pid, generation, serving: broken.is_none(), last_error: broken.clone(), ..seen }
        };
        self.orders.lock().values().map(seen).collect()
    }

    fn shutdown(&self) {
        self.orders.lock().clear();
        self.calls.lock().push("shutdown".to_owned());
    }
}

/// Pools of 1000 bytes.
pub(crate) struct FakePools(Calls);

impl PoolService for FakePools {
    fn ensure_pool(&self, id: PoolId, _name: &str, spec: &PoolSpec) -> Result<PoolObserved, ServiceError> {
        match spec {
            PoolSpec::Posix(posix) => {
                let host = posix.host.as_deref().unwrap_or("nowhere");
                self.0.lock().push(format!("pool {id} on {host}"));
                Ok(PoolObserved { bytes_total: Some(1000), bytes_free: Some(400), ..PoolObserved::default() })
            }
            PoolSpec::S3(s3) => {
                self.0.lock().push(format!("pool {id} in {}", s3.url()));
                let notes = vec!["it forgets".to_owned()];
                Ok(PoolObserved {
                    s3: Some(S3Capabilities { notes, ..S3Capabilities::default() }),
                    ..PoolObserved::default()
                })
            }
        }
    }

    fn remove_pool(&self, id: PoolId) -> Result<(), ServiceError> {
        self.0.lock().push(format!("remove pool {id}"));
        Ok(())
    }

    fn check_pool(
        &self,
        order: &PoolCheckOrder,
        tell: Listener<'_, PoolCheckEvent>,
    ) -> Result<PoolCheckSummary, ServiceError> {
        self.0.lock().push(format!("check pool {}", order.id));
        tell(PoolCheckEvent::Problem(PoolProblem {
            kind: PoolProblemKind::Missing,
            tenant: TenantId(1),
            key: "k1".to_owned(),
            file: None,
            detail: String::new(),
        }));
        Ok(PoolCheckSummary { objects: 1, files: 2, problems: 1, repaired: 0 })
    }
}

/// A store and services to test with.
pub(crate) struct Fixture {
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) map: Arc<FakeMap>,
    pub(crate) mounts: Arc<FakeMounts>,
    calls: Calls,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        clock.advance(Duration::from_secs(1_000_000));
        let store =
            Store::open(Arc::new(MemoryEngine::default()), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let calls = Calls::default();
        let map = Arc::new(FakeMap { calls: Arc::clone(&calls), ..FakeMap::default() });
        let mounts = Arc::new(FakeMounts { calls: Arc::clone(&calls), ..FakeMounts::default() });
        Self { store, clock, map, mounts, calls }
    }

    pub(crate) fn services(&self) -> Services {
        Services {
            map: Arc::clone(&self.map) as _,
            mounts: Arc::clone(&self.mounts) as _,
            pools: Arc::new(FakePools(Arc::clone(&self.calls))),
            forgeries: Forgeries::default(),
            audit_dropped: Dropped::default(),
            disk_caches: DiskCaches::default(),
        }
    }

    pub(crate) fn context(&self) -> Arc<Context> {
        let (store, services) = (Arc::clone(&self.store), self.services());
        Arc::new(Context { store, services, shards: 16, hostname: "testhost".to_owned() })
    }

    pub(crate) fn clock_now(&self) -> SystemTime {
        self.clock.now()
    }

    /// The calls that changed something since this was last asked.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock())
    }

    pub(crate) fn apply(&self, kind: Kind, name: &str, spec: Value) {
        self.apply_as(kind, name, spec, 0);
    }

    pub(crate) fn apply_as(&self, kind: Kind, name: &str, spec: Value, uid: u32) {
        self.store.apply(kind, name, &Manifest::new(kind, name, spec), uid).unwrap();
    }

    pub(crate) fn delete(&self, kind: Kind, name: &str, forced: bool) {
        self.store.request_deletion(kind, name, None, forced).unwrap();
    }

    pub(crate) fn object(&self, kind: Kind, name: &str) -> Object {
        self.store.get(kind, name).unwrap().unwrap()
    }

    pub(crate) fn read<T: ResourceType>(&self, name: &str) -> Resource<T> {
        self.object(T::KIND, name).typed().unwrap()
    }

    pub(crate) fn forget(&self, kind: Kind, name: &str) {
        self.store.forget(kind, name, self.object(kind, name).metadata.uid).unwrap();
    }

    pub(crate) fn gone(&self, kind: Kind, name: &str) -> bool {
        self.store.get(kind, name).unwrap().is_none()
    }

    fn make_ready<T: ResourceType>(&self, name: &str) {
        let mut resource = self.read::<T>(name);
        T::common_mut(&mut resource.status).state(self.clock.now(), T::READY, Truth::True, "Test", "");
        self.store.set_status(&resource).unwrap();
    }

    pub(crate) fn ready_pool(&self, name: &str) {
        self.apply(Kind::Pool, name, json!({"posix": {"path": "/pool"}}));
        self.make_ready::<Pool>(name);
    }

    pub(crate) fn ready_tenant(&self, name: &str) {
        self.apply(Kind::Tenant, name, json!({}));
        self.make_ready::<Tenant>(name);
    }
}
