//! Tenants: a tree in the address map each; removed only when nobody would lose anything, or when that is wanted.

use std::sync::Arc;

use address_map::ids::{PoolId, ShardId, TenantId};
use address_map::record::{Quota, Usage};

use super::{Context, Next, ReconcileError, Reconciler, Work, some_of};
use crate::informer::references;
use crate::placement::{pool_for, shard_of};
use crate::resource::{
    Kind, MEMORY_BOUNDED, Pool, Reference, Resource, SERVING, Share, Tenant, TenantStatus, Truth,
    UsageStatus, human_bytes,
};
use crate::services::{MountObserved, ServiceError, TenantSetup};
use crate::store::StoreError;

/// Inodes of a tenant without data: its root directory.
const INODES_WHEN_EMPTY: u64 = 1;

/// What is the case about a tenant.
#[derive(Debug, Default)]
struct Observed {
    /// The pool for its new files.
    pool: PoolState,
    /// Mounts and shares that stand in the way of its deletion.
    blockers: Vec<Reference>,
    /// Shares of the past that have to go with it.
    remains: Vec<Reference>,
    /// What it uses; looked at only when it is to go.
    usage: Usage,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum PoolState {
    #[default]
    Missing,
    NotReady,
    Ready(PoolId),
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Ensure { pool: PoolId },
    Wait { truth: Truth, reason: &'static str, message: String },
    Keep { reason: &'static str, message: String },
    Delete(Reference),
    RemoveData,
    Forget,
}

/// Whether a tenant has anything to lose.
pub(crate) fn has_data(usage: &Usage) -> bool {
    usage.bytes > 0 || usage.inodes > INODES_WHEN_EMPTY
}

/// Why a tenant is not deleted without being forced: a sentence.
pub(crate) fn has_data_sentence(name: &str, usage: &Usage) -> String {
    let (bytes, inodes) = (human_bytes(usage.bytes), usage.inodes.saturating_sub(INODES_WHEN_EMPTY));
    format!("the tenant '{name}' has {bytes} in {inodes} files and directories")
}

fn plan(tenant: &Resource<Tenant>, pool_name: &str, observed: &Observed) -> Vec<Step> {
    if tenant.metadata.deletion_requested {
        return plan_deletion(tenant, observed);
    }
    let wait = |truth, reason, message| vec![Step::Wait { truth, reason, message }];
    match observed.pool {
        PoolState::Missing => {
            let message =
                format!("there is no pool '{pool_name}'; add it with: vmdsctl pool add {pool_name}");
            wait(Truth::False, "PoolMissing", message)
        }
        PoolState::NotReady => {
            wait(Truth::Unknown, "WaitingForPool", format!("the pool '{pool_name}' is not ready"))
        }
        PoolState::Ready(pool) => vec![Step::Ensure { pool }],
    }
}

fn plan_deletion(tenant: &Resource<Tenant>, observed: &Observed) -> Vec<Step> {
    let name = tenant.name();
    if !tenant.metadata.deletion_forced {
        if !observed.blockers.is_empty() {
            return vec![Step::Keep { reason: "InUse", message: in_use_sentence(name, &observed.blockers) }];
        }
        if has_data(&observed.usage) {
            return vec![Step::Keep { reason: "HasData", message: has_data_sentence(name, &observed.usage) }];
        }
    }
    let mut steps: Vec<_> =
        observed.blockers.iter().chain(&observed.remains).cloned().map(Step::Delete).collect();
    if steps.is_empty() {
        return vec![Step::RemoveData, Step::Forget];
    }
    let message = format!("{} mounts and shares go first", steps.len());
    steps.push(Step::Wait { truth: Truth::Unknown, reason: "Deleting", message });
    steps
}

/// Why a tenant is not deleted without being forced: a sentence.
pub(crate) fn in_use_sentence(name: &str, blockers: &[Reference]) -> String {
    let named: Vec<_> = blockers.iter().map(|b| format!("{} {}", b.kind, b.name)).collect();
    format!("the tenant '{name}' is in use by {}", some_of(&named))
}

/// Mounts and shares of a tenant: those that are alive, and shares of the past.
pub(crate) fn dependents(
    store: &crate::store::Store,
    tenant: &str,
) -> Result<(Vec<Reference>, Vec<Reference>), StoreError> {
    let needed = Reference::new(Kind::Tenant, tenant);
    let (_, objects) = store.list(&[Kind::Mount, Kind::Share])?;
    let (mut blockers, mut remains) = (Vec::new(), Vec::new());
    for object in objects.iter().filter(|object| references(object).contains(&needed)) {
        let this = Reference::new(object.kind, object.name());
        match object.typed::<Share>() {
            Ok(share) if object.kind == Kind::Share => {
                let granted = share.status.owner_id.is_some();
                if share.status.receipt.is_some() {
                    remains.push(this);
                } else if granted || share.spec.from.tenant == tenant {
                    blockers.push(this);
                }
                // What others would like to share with the tenant is not the tenant's.
            }
            _ => blockers.push(this),
        }
    }
    Ok((blockers, remains))
}

/// Whether the requests to a tenant's mounts are answered. All its mounts on a node have one VMDS.
fn serving(mounts: &[MountObserved]) -> (Truth, &'static str, String) {
    let Some(MountObserved { serving, pid, generation, last_error, .. }) = mounts.first() else {
        return (Truth::False, "NotMounted", "it is not mounted".to_owned());
    };
    match (serving, last_error) {
        (true, None) => {
            (Truth::True, "Serving", format!("process {pid}, generation {generation}, answers requests"))
        }
        (true, Some(error)) => {
            let message = format!(
                "process {pid}, generation {generation}, answers requests; what came before it: {error}"
            );
            (Truth::True, "Serving", message)
        }
        (false, Some(error)) => {
            (Truth::False, "Recovering", format!("nobody answers after generation {generation}: {error}"))
        }
        (false, None) => (Truth::False, "Starting", format!("generation {generation} is being started")),
    }
}

fn state_serving(work: &mut Work<'_, Tenant>) {
    let id = TenantId(work.resource.status.tenant_id);
    let mut mounts = work.context.services.mounts.observe();
    mounts.retain(|mount| mount.tenant == id);
    let (truth, reason, message) = serving(&mounts);
    work.state(SERVING, truth, reason, message);
    let (truth, reason, message) = match mounts.first().map(|mount| &mount.memory) {
        Some(Ok(how)) => (Truth::True, "Bounded", how.clone()),
        Some(Err(why)) => (Truth::False, "Unbounded", why.clone()),
        None => (Truth::Unknown, "NotMounted", "it is not mounted".to_owned()),
    };
    work.state(MEMORY_BOUNDED, truth, reason, message);
}

/// Makes tenants what they should be.
pub struct TenantReconciler(pub Arc<Context>);

impl TenantReconciler {
    fn observe(&self, tenant: &Resource<Tenant>, pool_name: &str) -> Result<Observed, ReconcileError> {
        if tenant.metadata.deletion_requested {
            let (blockers, remains) = dependents(&self.0.store, tenant.name())?;
            let usage = usage_or_none(self.0.services.map.usage(TenantId(tenant.status.tenant_id)))?;
            return Ok(Observed { blockers, remains, usage, pool: PoolState::Missing });
        }
        let pool = match self.0.store.read::<Pool>(pool_name)? {
            None => PoolState::Missing,
            Some(pool) if pool.is_ready() && !pool.metadata.deletion_requested => {
                PoolState::Ready(PoolId(pool.status.pool_id))
            }
            Some(_) => PoolState::NotReady,
        };
        Ok(Observed { pool, ..Observed::default() })
    }

    /// Brings the map up to date and looks at what is used.
    fn ensure(&self, tenant: &Resource<Tenant>, shard: ShardId, pool: PoolId) -> Result<Usage, ServiceError> {
        let (spec, map) = (&tenant.spec, &self.0.services.map);
        map.ensure_tenant(&TenantSetup {
            id: TenantId(tenant.status.tenant_id),
            name: tenant.name().to_owned(),
            shard,
            pool,
            quota: Quota { bytes: spec.quota.bytes.map(|b| b.0), inodes: spec.quota.inodes },
            root_uid: spec.root_owner(),
            root_mode: spec.root_mode_bits().map_err(ServiceError::Invalid)?,
        })?;
        map.usage(TenantId(tenant.status.tenant_id))
    }
}

/// A tenant that never came to be uses nothing.
pub(crate) fn usage_or_none(usage: Result<Usage, ServiceError>) -> Result<Usage, ServiceError> {
    match usage {
        Err(ServiceError::NotFound(_)) => Ok(Usage::default()),
        other => other,
    }
}

/// The shard of a tenant: recorded before anything is written to it, so that it can never be another one.
fn record_shard(work: &mut Work<'_, Tenant>) -> Result<ShardId, ReconcileError> {
    let status: &mut TenantStatus = &mut work.resource.status;
    if let Some(shard) = status.shard {
        return Ok(ShardId(shard));
    }
    let shard = shard_of(TenantId(status.tenant_id), work.context.shards);
    status.shard = Some(shard.0);
    work.context.store.set_status(&work.resource)?;
    Ok(shard)
}

impl Reconciler for TenantReconciler {
    fn kind(&self) -> Kind {
        Kind::Tenant
    }

    fn reconcile(&self, name: &str) -> Result<Next, ReconcileError> {
        let Some(mut work) = Work::<Tenant>::on(&self.0, name)? else { return Ok(Next::Change) };
        let pool_name = {
            let Resource { spec, status, .. } = &work.resource;
            pool_for(spec.pool.as_deref(), status.pool.as_deref()).to_owned()
        };
        let observed = self.observe(&work.resource, &pool_name)?;
        for step in plan(&work.resource, &pool_name, &observed) {
            match step {
                Step::Ensure { pool } => {
                    let shard = record_shard(&mut work)?;
                    let usage = match self.ensure(&work.resource, shard, pool) {
                        Ok(usage) => usage,
                        Err(error) => {
                            work.state_failure(&error);
                            state_serving(&mut work);
                            work.save()?;
                            return Err(error.into());
                        }
                    };
                    let status = &mut work.resource.status;
                    status.use_pool(&pool_name);
                    status.usage = UsageStatus { bytes: usage.bytes, inodes: usage.inodes };
                    work.state("Ready", Truth::True, "Serving", "the tenant can be mounted");
                    state_serving(&mut work);
                    work.save()?;
                }
                Step::Wait { truth, reason, message } => {
                    work.state("Ready", truth, reason, message);
                    state_serving(&mut work);
                    work.save()?;
                }
                Step::Keep { reason, message } => return work.keep(reason, message),
                Step::Delete(dependent) => {
                    match self.0.store.request_deletion(dependent.kind, &dependent.name, None, true) {
                        Ok(_) | Err(StoreError::NotFound { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Step::RemoveData => {
                    let id = TenantId(work.resource.status.tenant_id);
                    if let Err(error) = self.0.services.map.remove_tenant(id) {
                        return work.save_failure(error);
                    }
                }
                Step::Forget => return work.forget(),
            }
        }
        Ok(Next::Change)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fakes::Fixture;
    use super::*;

    fn tenant() -> Resource<Tenant> {
        let fixture = Fixture::new();
        fixture.apply(Kind::Tenant, "a", json!({}));
        fixture.read("a")
    }

    #[test]
    fn plans_for_the_living() {
        let plan = |pool| plan(&tenant(), "p", &Observed { pool, ..Observed::default() });
        assert_eq!(plan(PoolState::Ready(PoolId(3))), [Step::Ensure { pool: PoolId(3) }]);
        let of = |steps: Vec<Step>| match &steps[..] {
            [Step::Wait { truth, reason, .. }] => (*truth, *reason),
            other => panic!("{other:?}"),
        };
        assert_eq!(of(plan(PoolState::Missing)), (Truth::False, "PoolMissing"));
        assert_eq!(of(plan(PoolState::NotReady)), (Truth::Unknown, "WaitingForPool"));
    }

    #[test]
    fn plans_for_the_dying() {
        let mut tenant = tenant();
        tenant.metadata.deletion_requested = true;
        let mount = Reference::new(Kind::Mount, "mnt");
        let empty = || Observed { usage: Usage { bytes: 0, inodes: 1 }, ..Observed::default() };
        let in_use = || Observed { blockers: vec![mount.clone()], ..empty() };
        let full = || Observed { usage: Usage { bytes: 2048, inodes: 3 }, ..Observed::default() };
        let over = || Observed { remains: vec![mount.clone()], ..empty() };
        assert_eq!(plan(&tenant, "p", &empty()), [Step::RemoveData, Step::Forget]);
        let kept = |observed| match plan(&tenant, "p", &observed).remove(0) {
            Step::Keep { reason, message } => (reason, message),
            other => panic!("{other:?}"),
        };
        assert_eq!(kept(in_use()), ("InUse", "the tenant 'a' is in use by mount mnt".to_owned()));
        let sentence = "the tenant 'a' has 2KiB in 2 files and directories";
        assert_eq!(kept(full()), ("HasData", sentence.to_owned()));
        assert_eq!(plan(&tenant, "p", &over())[0], Step::Delete(mount.clone()), "the past does not block");
        tenant.metadata.deletion_forced = true;
        assert_eq!(plan(&tenant, "p", &full()), [Step::RemoveData, Step::Forget]);
        let steps = plan(&tenant, "p", &in_use());
        assert!(matches!(&steps[..], [Step::Delete(_), Step::Wait { reason: "Deleting", .. }]), "{steps:?}");
    }

    #[test]
    fn a_tenant_gets_its_tree_once_its_pool_is_there() {
        let fixture = Fixture::new();
        let tenants = TenantReconciler(fixture.context());
        let spec = json!({"quota": {"bytes": "1KiB"}, "owners": [1000], "rootMode": "0700", "pool": "p"});
        fixture.apply(Kind::Tenant, "a", spec);
        tenants.reconcile("a").unwrap();
        assert!(!fixture.read::<Tenant>("a").is_ready());
        fixture.ready_pool("p");
        tenants.reconcile("a").unwrap();
        let tenant = fixture.read::<Tenant>("a");
        assert!(tenant.is_ready());
        assert_eq!((tenant.status.pool.as_deref(), tenant.status.usage.inodes), (Some("p"), 1));
        let shard = shard_of(TenantId(1), 16);
        assert_eq!(tenant.status.shard, Some(shard.0));
        let setup = &fixture.map.tenants.lock()[&TenantId(1)].clone();
        assert_eq!((setup.shard, setup.pool, setup.quota.bytes), (shard, PoolId(1), Some(1024)));
        assert_eq!((setup.root_uid, setup.root_mode), (1000, 0o700));
    }

    #[test]
    fn a_tenant_says_whether_it_is_served() {
        let fixture = Fixture::new();
        let tenants = TenantReconciler(fixture.context());
        fixture.ready_pool("p");
        fixture.apply(Kind::Tenant, "a", json!({"pool": "p"}));
        let serving = || {
            tenants.reconcile("a").unwrap();
            let serving = fixture.read::<Tenant>("a").status.common.condition(SERVING).cloned().unwrap();
            (serving.status, serving.reason, serving.message)
        };
        assert_eq!((serving().0, serving().1.as_str()), (Truth::False, "NotMounted"));
        fixture.apply(Kind::Mount, "mnt", json!({"tenant": "a", "dir": "/mnt"}));
        crate::reconcile::MountReconciler(fixture.context()).reconcile("mnt").unwrap();
        let message = "process 4242, generation 1, answers requests";
        assert_eq!(serving(), (Truth::True, "Serving".to_owned(), message.to_owned()));
        *fixture.mounts.broken.lock() = Some("the VMDS ended with signal: 11".to_owned());
        let message = "nobody answers after generation 1: the VMDS ended with signal: 11";
        assert_eq!(serving(), (Truth::False, "Recovering".to_owned(), message.to_owned()));
        assert!(fixture.read::<Tenant>("a").is_ready(), "it can be mounted all the same");
    }

    #[test]
    fn what_others_would_like_to_share_does_not_block() {
        let fixture = Fixture::new();
        let dependents = || dependents(&fixture.store, "b").unwrap();
        let spec =
            json!({"from": {"tenant": "a", "path": "/d"}, "to": {"tenant": "b"}, "rights": "readOnly"});
        fixture.apply(Kind::Share, "s", spec);
        assert_eq!(dependents(), (vec![], vec![]));
        let mut share = fixture.read::<Share>("s");
        share.status.owner_id = Some(1);
        fixture.store.set_status(&share).unwrap();
        let this = || vec![Reference::new(Kind::Share, "s")];
        assert_eq!(dependents(), (this(), vec![]));
        share.status.receipt =
            serde_json::from_value(json!({"at": "2031-05-07T12:00:00Z", "mountsDropped": 0})).unwrap();
        fixture.store.set_status(&share).unwrap();
        assert_eq!(dependents(), (vec![], this()));
    }

    #[test]
    fn purging_takes_mounts_and_shares_first() {
        let fixture = Fixture::new();
        let tenants = TenantReconciler(fixture.context());
        fixture.ready_tenant("a");
        fixture.apply(Kind::Mount, "mnt", json!({"tenant": "a", "dir": "/mnt"}));
        fixture.delete(Kind::Tenant, "a", false);
        tenants.reconcile("a").unwrap();
        assert!(!fixture.read::<Tenant>("a").metadata.deletion_requested, "withdrawn");
        fixture.delete(Kind::Tenant, "a", true);
        tenants.reconcile("a").unwrap();
        let mount = fixture.object(Kind::Mount, "mnt");
        assert!(mount.metadata.deletion_requested && mount.metadata.deletion_forced);
        assert!(!fixture.gone(Kind::Tenant, "a"));
        fixture.forget(Kind::Mount, "mnt");
        tenants.reconcile("a").unwrap();
        assert!(fixture.gone(Kind::Tenant, "a"));
        assert!(fixture.map.tenants.lock().is_empty());
    }
}
