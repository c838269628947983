//! Mounts: made, changed when their flags change, unmounted; and told apart from what the agent sees.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use address_map::ids::TenantId;

use super::{Context, Next, Queues, ReconcileError, Reconciler, Work};
use crate::informer::Cache;
use crate::resource::{ByteSize, Kind, Mount, MountFlags, Reference, Resource, Tenant, Truth, mount_name};
use crate::services::{MountObserved, MountOrder, MountService, ServiceError};

/// How often the agent's mounts are compared with what was seen before.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is the case about a mount.
#[derive(Clone, Debug)]
struct Observed {
    tenant: TenantState,
    /// What is mounted at the directory.
    mounted: Option<MountObserved>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TenantState {
    Missing,
    NotReady,
    Ready(Wanted),
}

/// What a tenant wants of its mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    id: TenantId,
    flags: MountFlags,
    metered: bool,
    memory: ByteSize,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Mount(Wanted),
    Umount,
    Report(MountObserved),
    Wait { truth: Truth, reason: &'static str, message: String },
    Forget,
}

fn plan(mount: &Resource<Mount>, observed: &Observed) -> Vec<Step> {
    if mount.metadata.deletion_requested {
        return vec![Step::Umount, Step::Forget];
    }
    let wanted = match observed.tenant {
        TenantState::Missing => {
            let message = format!("there is no tenant '{}'", mount.spec.tenant);
            return vec![Step::Wait { truth: Truth::False, reason: "TenantMissing", message }];
        }
        TenantState::NotReady => {
            let message = format!("the tenant '{}' is not ready", mount.spec.tenant);
            return vec![Step::Wait { truth: Truth::Unknown, reason: "WaitingForTenant", message }];
        }
        TenantState::Ready(wanted) => wanted,
    };
    let (make, known) = (Step::Mount(wanted), &mount.status);
    match &observed.mounted {
        None => vec![make],
        Some(other) if other.tenant != wanted.id => {
            let message = format!("another tenant is mounted at {}", mount.spec.dir.display());
            vec![Step::Wait { truth: Truth::False, reason: "DirectoryInUse", message }]
        }
        Some(seen)
            if known.options == Some(wanted.flags)
                && known.metered == wanted.metered
                && known.memory == Some(wanted.memory) =>
        {
            vec![Step::Report(seen.clone())]
        }
        // Other options, or nobody knows which; a quota came or went, or the bound of memory is another: the agent sets that
        // right without unmounting.
        Some(_) => vec![make],
    }
}

/// Makes mounts what they should be.
pub struct MountReconciler(pub Arc<Context>);

impl MountReconciler {
    fn observe(&self, mount: &Resource<Mount>) -> Result<Observed, ReconcileError> {
        let tenant = match self.0.store.read::<Tenant>(&mount.spec.tenant)? {
            None => TenantState::Missing,
            Some(tenant) if tenant.metadata.deletion_requested || !tenant.is_ready() => TenantState::NotReady,
            Some(tenant) => TenantState::Ready(Wanted {
                id: TenantId(tenant.status.tenant_id),
                flags: mount.spec.effective(&tenant.spec.mount_options, mount.metadata.created_by),
                metered: tenant.spec.quota.bytes.is_some(),
                memory: tenant.spec.memory,
            }),
        };
        let all = self.0.services.mounts.observe();
        Ok(Observed { tenant, mounted: all.into_iter().find(|seen| seen.dir == mount.spec.dir) })
    }
}

fn report(work: &mut Work<'_, Mount>, seen: &MountObserved) -> Result<(), ReconcileError> {
    let status = &mut work.resource.status;
    (status.serving, status.pid) = (seen.serving, Some(seen.pid));
    (status.vmds_generation, status.since) = (seen.generation, Some(seen.since.into()));
    status.taken_over = seen.taken_over;
    match (seen.serving, &seen.last_error) {
        (true, None) => work.state("Ready", Truth::True, "Serving", "requests are being answered"),
        (true, Some(before)) => {
            work.state(
                "Ready",
                Truth::True,
                "Serving",
                format!("requests are being answered again: {before}"),
            );
        }
        (false, Some(error)) => work.state("Ready", Truth::Unknown, "Recovering", error.clone()),
        (false, None) => work.state("Ready", Truth::Unknown, "Starting", "the VMDS is starting"),
    }
    work.save()
}

impl Reconciler for MountReconciler {
    fn kind(&self) -> Kind {
        Kind::Mount
    }

    fn reconcile(&self, name: &str) -> Result<Next, ReconcileError> {
        let Some(mut work) = Work::<Mount>::on(&self.0, name)? else { return Ok(Next::Change) };
        let agent = &self.0.services.mounts;
        let (meta, spec) = (work.resource.metadata.clone(), work.resource.spec.clone());
        let observed = self.observe(&work.resource)?;
        for step in plan(&work.resource, &observed) {
            match step {
                Step::Mount(Wanted { id, flags, metered, memory }) => {
                    let order = MountOrder {
                        tenant: id,
                        tenant_name: spec.tenant.clone(),
                        dir: spec.dir.clone(),
                        options: flags,
                        dir_owner: (meta.created_by != 0).then_some(meta.created_by),
                        metered,
                        memory: memory.0,
                    };
                    let seen = match agent.mount(&order) {
                        Ok(seen) => seen,
                        // It goes on as it was.
                        Err(error) if observed.mounted.is_some() => return work.save_failure(error),
                        Err(error) => return not_mounted(work, error),
                    };
                    let status = &mut work.resource.status;
                    (status.options, status.metered, status.memory) = (Some(flags), metered, Some(memory));
                    report(&mut work, &seen)?;
                }
                Step::Umount => match agent.umount(&spec.dir, meta.deletion_forced) {
                    Ok(()) => {}
                    // Asked for by somebody who waits for the answer, not for the mount to vanish at some later time.
                    Err(ServiceError::Busy(sentence)) if meta.deletion_requested => {
                        return work.keep("Busy", sentence);
                    }
                    Err(error) => return work.save_failure(error),
                },
                Step::Report(seen) => report(&mut work, &seen)?,
                Step::Wait { truth, reason, message } => {
                    work.state("Ready", truth, reason, message);
                    work.save()?;
                }
                Step::Forget => return work.forget(),
            }
        }
        Ok(Next::Change)
    }
}

fn not_mounted(mut work: Work<'_, Mount>, error: ServiceError) -> Result<Next, ReconcileError> {
    let status = &mut work.resource.status;
    (status.serving, status.pid, status.since) = (false, None, None);
    work.save_failure(error)
}

/// Looks at the agent's mounts for ever and asks for a look at each that changed by itself, and at its tenant: a VMDS
/// that died and came back, a mount that somebody else removed.
pub async fn watch_mounts(agent: Arc<dyn MountService>, queues: Arc<Queues>, cache: Arc<Cache>) {
    let mut known = HashMap::new();
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let agent = Arc::clone(&agent);
        let Ok(seen) = tokio::task::spawn_blocking(move || agent.observe()).await else { continue };
        let seen: HashMap<PathBuf, MountObserved> =
            seen.into_iter().map(|mount| (mount.dir.clone(), mount)).collect();
        for dir in changed(&known, &seen).into_iter().chain(lost(&cache, &seen)) {
            let name = mount_name(&dir);
            let mount = cache.get(Kind::Mount, &name);
            if let Some(tenant) = mount.as_ref().and_then(|mount| mount.spec["tenant"].as_str()) {
                queues.add(&Reference::new(Kind::Tenant, tenant));
            }
            queues.add(&Reference::new(Kind::Mount, &name));
        }
        known = seen;
    }
}

/// Mounts that are said to be there and are not: they may have come and gone between two looks, and have had no VMDS when
/// they were looked at in between.
fn lost(cache: &Cache, seen: &HashMap<PathBuf, MountObserved>) -> Vec<PathBuf> {
    let mounted = cache.list(Kind::Mount).into_iter().filter(|mount| mount.status["pid"].is_number());
    let dirs = mounted.filter_map(|mount| mount.spec["dir"].as_str().map(PathBuf::from));
    dirs.filter(|dir| !seen.contains_key(dir)).collect()
}

fn changed(known: &HashMap<PathBuf, MountObserved>, seen: &HashMap<PathBuf, MountObserved>) -> Vec<PathBuf> {
    let differs = seen.iter().filter(|(dir, mount)| known.get(*dir) != Some(mount));
    let gone = known.keys().filter(|dir| !seen.contains_key(*dir));
    differs.map(|(dir, _)| dir).chain(gone).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::SystemTime;

    use serde_json::json;

    use super::super::fakes::Fixture;
    use super::*;

    fn seen(tenant: u32) -> MountObserved {
        MountObserved {
            tenant: TenantId(tenant),
            dir: PathBuf::from("/mnt"),
            pid: 7,
            generation: 1,
            serving: true,
            since: SystemTime::UNIX_EPOCH,
            last_error: None,
            taken_over: false,
            memory: Ok(String::new()),
        }
    }

    #[test]
    fn plans() {
        let fixture = Fixture::new();
        fixture.apply(Kind::Mount, "mnt", json!({"tenant": "a", "dir": "/mnt"}));
        let mut mount = fixture.read::<Mount>("mnt");
        let flags = MountFlags::default();
        let memory = ByteSize(256 << 20);
        let wanted = Wanted { id: TenantId(1), flags, metered: false, memory };
        let ready = TenantState::Ready(wanted);
        let at = |tenant: &TenantState, mounted| Observed { tenant: tenant.clone(), mounted };
        let make = || Step::Mount(wanted);
        let reason = |steps: Vec<Step>| match &steps[..] {
            [Step::Wait { reason, .. }] => *reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(plan(&mount, &at(&TenantState::Missing, None))), "TenantMissing");
        assert_eq!(reason(plan(&mount, &at(&TenantState::NotReady, Some(seen(1))))), "WaitingForTenant");
        assert_eq!(reason(plan(&mount, &at(&ready, Some(seen(2))))), "DirectoryInUse");
        assert_eq!(plan(&mount, &at(&ready, None)), [make()]);
        assert_eq!(plan(&mount, &at(&ready, Some(seen(1)))), [make()], "how it was mounted is not known");
        mount.status.options = Some(flags);
        assert_eq!(plan(&mount, &at(&ready, Some(seen(1)))), [make()], "its memory is not known");
        mount.status.memory = Some(memory);
        assert_eq!(plan(&mount, &at(&ready, Some(seen(1)))), [Step::Report(seen(1))]);
        mount.status.metered = true;
        assert_eq!(plan(&mount, &at(&ready, Some(seen(1)))), [make()]);
        mount.status.options = Some(MountFlags { read_only: true, ..flags });
        assert_eq!(plan(&mount, &at(&ready, Some(seen(1)))), [make()], "without unmounting");
        mount.metadata.deletion_requested = true;
        assert_eq!(plan(&mount, &at(&TenantState::Missing, None)), [Step::Umount, Step::Forget]);
    }

    #[test]
    fn a_mount_follows_what_is_wanted() {
        let fixture = Fixture::new();
        let mounts = MountReconciler(fixture.context());
        fixture.ready_tenant("a");
        let spec = json!({"tenant": "a", "dir": "/mnt", "noexec": true});
        fixture.apply_as(Kind::Mount, "mnt", spec, 1000);
        mounts.reconcile("mnt").unwrap();
        let mount = fixture.read::<Mount>("mnt");
        assert!(mount.is_ready() && mount.status.serving);
        assert_eq!(mount.status.options.unwrap().to_string(), "rw,noexec");
        let order = fixture.mounts.orders.lock()[Path::new("/mnt")].clone();
        assert_eq!((order.dir_owner, order.metered), (Some(1000), false));

        fixture.apply(Kind::Mount, "mnt", json!({"tenant": "a", "dir": "/mnt", "readOnly": true}));
        mounts.reconcile("mnt").unwrap();
        assert_eq!(fixture.read::<Mount>("mnt").status.options.unwrap().to_string(), "ro");
        assert_eq!(fixture.calls(), ["mount /mnt rw,noexec", "mount /mnt ro"]);
    }

    #[test]
    fn a_busy_mount_stays_unless_forced() {
        let fixture = Fixture::new();
        let mounts = MountReconciler(fixture.context());
        fixture.ready_tenant("a");
        fixture.apply(Kind::Mount, "mnt", json!({"tenant": "a", "dir": "/mnt"}));
        mounts.reconcile("mnt").unwrap();
        *fixture.mounts.busy.lock() = Some("the mount is in use by 42 (vi)".to_owned());
        fixture.delete(Kind::Mount, "mnt", false);
        mounts.reconcile("mnt").unwrap();
        let mount = fixture.read::<Mount>("mnt");
        assert!(!mount.metadata.deletion_requested && mount.is_ready());
        let deleted = mount.status.common.condition("Deleted").unwrap();
        assert_eq!(
            (deleted.status, deleted.message.as_str()),
            (Truth::False, "the mount is in use by 42 (vi)")
        );
        fixture.delete(Kind::Mount, "mnt", true);
        mounts.reconcile("mnt").unwrap();
        assert!(fixture.gone(Kind::Mount, "mnt"));
    }

    #[test]
    fn a_mount_that_fails_says_so_and_is_tried_again() {
        let fixture = Fixture::new();
        let mounts = MountReconciler(fixture.context());
        fixture.ready_tenant("a");
        fixture.apply(Kind::Mount, "mnt", json!({"tenant": "a", "dir": "/mnt"}));
        *fixture.mounts.fails.lock() = Some("/mnt does not exist".to_owned());
        assert!(mounts.reconcile("mnt").is_err());
        let status = fixture.read::<Mount>("mnt").status;
        let ready = status.common.condition("Ready").unwrap();
        assert_eq!((ready.status, ready.message.as_str()), (Truth::False, "/mnt does not exist"));
        assert_eq!(status.common.observed_generation, 1);
    }

    #[test]
    fn what_changed_by_itself_is_found() {
        let map = |mounts: Vec<MountObserved>| mounts.into_iter().map(|m| (m.dir.clone(), m)).collect();
        let (one, none): (HashMap<_, _>, HashMap<_, _>) = (map(vec![seen(1)]), map(vec![]));
        let again: HashMap<_, _> = map(vec![MountObserved { pid: 8, generation: 2, ..seen(1) }]);
        assert!(changed(&one, &one).is_empty());
        for (before, after) in [(&one, &again), (&one, &none), (&none, &one)] {
            assert_eq!(changed(before, after), [PathBuf::from("/mnt")]);
        }
    }
}
