//! Pools: opened for use, looked at, refused when their directory cannot serve.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use address_map::ids::PoolId;
use dashmap::DashMap;
use rustix::fs::Access;

use super::{Context, Next, ReconcileError, Reconciler, Work, some_of};
use crate::pool::{DEFAULT_PATIENCE as LOOK_WITHIN, Deadline};
use crate::resource::{Kind, Pool, PoolSpec, Reference, Resource, Truth};
use crate::services::{PoolObserved, ServiceError};
use crate::store::StoreError;

/// What is the case about a pool.
#[derive(Debug, Default)]
struct Observed {
    /// Why the directory cannot be a pool.
    unfit: Option<String>,
    /// Tenants whose bytes are in it.
    users: Vec<String>,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Ensure,
    Refuse(String),
    Keep(String),
    Remove,
    Forget,
}

fn plan(pool: &Resource<Pool>, observed: &Observed) -> Vec<Step> {
    if pool.metadata.deletion_requested {
        if observed.users.is_empty() {
            return vec![Step::Remove, Step::Forget];
        }
        let users = some_of(&observed.users);
        return vec![Step::Keep(format!("the pool is used by {users}; delete these tenants first"))];
    }
    match &observed.unfit {
        Some(sentence) => vec![Step::Refuse(sentence.clone())],
        None => vec![Step::Ensure],
    }
}

/// Makes pools what they should be.
pub struct PoolReconciler {
    context: Arc<Context>,
    /// For looking at directories, each with its own: one that hangs must not use up the patience for others.
    looks: DashMap<PathBuf, Arc<Deadline>>,
}

impl PoolReconciler {
    /// One that works with `context`.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, looks: DashMap::new() }
    }

    /// Why a directory cannot be a pool, as [`unfit`]; also if it does not answer.
    fn unfit(&self, dir: &Path) -> Option<String> {
        let deadline =
            self.looks.entry(dir.to_owned()).or_insert_with(|| Arc::new(Deadline::new(LOOK_WITHIN)));
        let deadline = Arc::clone(&deadline);
        let looked_at = dir.to_owned();
        match deadline.call(move || Ok(unfit(&looked_at))) {
            Ok(unfit) => unfit,
            Err(error) => Some(format!("{} cannot be looked at: {error}", dir.display())),
        }
    }

    fn observe(&self, pool: &Resource<Pool>) -> Result<Observed, StoreError> {
        if pool.metadata.deletion_requested {
            let this = Reference::new(Kind::Pool, pool.name());
            let tenants = self.context.store.list(&[Kind::Tenant])?.1;
            let users = tenants.iter().filter(|t| crate::informer::references(t).contains(&this));
            return Ok(Observed { unfit: None, users: users.map(|t| t.name().to_owned()).collect() });
        }
        let unfit = match &pool.spec {
            PoolSpec::Posix(posix) => self.unfit(&posix.path),
            // Only asking a bucket shows what it is fit for.
            PoolSpec::S3(_) => None,
        };
        Ok(Observed { unfit, users: Vec::new() })
    }
}

impl Reconciler for PoolReconciler {
    fn kind(&self) -> Kind {
        Kind::Pool
    }

    fn reconcile(&self, name: &str) -> Result<Next, ReconcileError> {
        let Some(mut work) = Work::<Pool>::on(&self.context, name)? else { return Ok(Next::Change) };
        let id = PoolId(work.resource.status.pool_id);
        let pools = &self.context.services.pools;
        for step in plan(&work.resource, &self.observe(&work.resource)?) {
            match step {
                Step::Ensure => {
                    let mut spec = work.resource.spec.clone();
                    if let PoolSpec::Posix(posix) = &mut spec {
                        posix.host.get_or_insert_with(|| self.context.hostname.clone());
                    }
                    let seen = match pools.ensure_pool(id, name, &spec) {
                        Ok(seen) => seen,
                        Err(error) => return work.save_failure(error),
                    };
                    let message = in_use(&seen);
                    let status = &mut work.resource.status;
                    (status.bytes_total, status.bytes_free) = (seen.bytes_total, seen.bytes_free);
                    (status.s3, status.disk_cache) = (seen.s3, seen.disk_cache);
                    work.state("Ready", Truth::True, "Open", message);
                    work.save()?;
                }
                Step::Refuse(sentence) => {
                    work.state("Ready", Truth::False, "BadDirectory", sentence);
                    work.save()?;
                }
                Step::Keep(sentence) => return work.keep("InUse", sentence),
                Step::Remove => match pools.remove_pool(id) {
                    Ok(()) => {}
                    Err(ServiceError::Busy(sentence)) => return work.keep("InUse", sentence),
                    Err(error) => return work.save_failure(error),
                },
                Step::Forget => return work.forget(),
            }
        }
        Ok(Next::Change)
    }
}

/// What is said about a pool that is in use: also what its endpoint is not to be trusted with.
fn in_use(seen: &PoolObserved) -> String {
    let notes = seen.s3.iter().flat_map(|can| &can.notes);
    let problem = seen.disk_cache.as_ref().and_then(|cache| cache.problem.as_deref());
    let problem = problem.map(|problem| format!("nothing is kept on a disk: {problem}"));
    let told =
        std::iter::once("the pool is in use").chain(notes.map(String::as_str)).chain(problem.as_deref());
    told.collect::<Vec<_>>().join("; ")
}

/// Why a directory cannot be a pool: a sentence; `None`: it can.
///
/// A mount of ours is recognised before the path is looked at: if nobody serves it, looking would not return.
fn unfit(dir: &Path) -> Option<String> {
    let shown = dir.display();
    let inside = |mount: PathBuf| {
        let mount = mount.display();
        format!("{shown} is inside {mount}, where a tenant is mounted; a pool cannot live in what it serves")
    };
    let table = match std::fs::read_to_string("/proc/self/mountinfo") {
        Ok(table) => table,
        Err(error) => return Some(format!("the mounts of this host cannot be listed: {error}")),
    };
    if let Some(mount) = mount_of_ours(&table, dir) {
        return Some(inside(mount));
    }
    let real = match std::fs::canonicalize(dir) {
        Ok(real) => real,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Some(format!("{shown} does not exist; make the directory first"));
        }
        Err(error) => return Some(format!("{shown} cannot be looked at: {error}")),
    };
    if let Some(mount) = mount_of_ours(&table, &real) {
        return Some(inside(mount));
    }
    if !real.is_dir() {
        return Some(format!("{shown} is not a directory"));
    }
    match rustix::fs::access(&real, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => None,
        Err(error) => Some(format!("{shown} is not writable for the controller: {error}")),
    }
}

/// The mount of ours that a path lies in, according to a mount table; no file is touched.
fn mount_of_ours(table: &str, path: &Path) -> Option<PathBuf> {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let at = PathBuf::from(unescape(left.split(' ').nth(4)?));
        path.starts_with(&at).then(|| (at, right.starts_with("fuse.vmds ")))
    };
    // The last of the deepest is on top.
    let (at, ours) = table.lines().filter_map(mount).max_by_key(|(at, _)| at.as_os_str().len())?;
    ours.then_some(at)
}

/// Undoes the octal escapes of the mount table.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fakes::Fixture;
    use super::*;

    #[test]
    fn plans() {
        let fixture = Fixture::new();
        fixture.apply(Kind::Pool, "p", json!({"posix": {"path": "/p"}}));
        let mut pool = fixture.read::<Pool>("p");
        let fit = Observed::default();
        let used = Observed { users: vec!["a".to_owned()], ..Observed::default() };
        let unfit = Observed { unfit: Some("no".to_owned()), ..Observed::default() };
        assert_eq!(plan(&pool, &fit), [Step::Ensure]);
        assert_eq!(plan(&pool, &unfit), [Step::Refuse("no".to_owned())]);
        pool.metadata.deletion_requested = true;
        assert_eq!(plan(&pool, &fit), [Step::Remove, Step::Forget]);
        assert!(matches!(&plan(&pool, &used)[..], [Step::Keep(why)] if why.contains("used by a;")));
    }

    #[test]
    fn directories_that_cannot_serve_are_refused_in_one_sentence() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(unfit(dir.path()), None);
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(unfit(&file).unwrap().ends_with("is not a directory"));
        assert!(unfit(&dir.path().join("missing")).unwrap().contains("does not exist"));
    }

    #[test]
    fn mounts_of_ours_are_recognised_without_touching_them() {
        let table = "22 1 0:21 / / rw - ext4 /dev/sda rw\n\
                     30 22 0:44 / /mnt/a\\040b rw,nosuid - fuse.vmds vmds#a rw\n\
                     31 30 0:45 / /mnt/a\\040b/inner rw - tmpfs none rw\n";
        let of = |path: &str| mount_of_ours(table, Path::new(path));
        assert_eq!(of("/mnt/a b/pool"), Some(PathBuf::from("/mnt/a b")));
        assert_eq!(of("/mnt/a b"), Some(PathBuf::from("/mnt/a b")));
        assert_eq!(of("/mnt/a bc"), None);
        assert_eq!(of("/mnt/a b/inner/pool"), None);
        assert_eq!(of("/data"), None);
    }

    #[test]
    fn a_pool_is_opened_and_closed() {
        let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
        let pools = PoolReconciler::new(fixture.context());
        fixture.apply(Kind::Pool, "p", json!({"posix": {"path": dir.path()}}));
        pools.reconcile("p").unwrap();
        let pool = fixture.read::<Pool>("p");
        assert!(pool.is_ready());
        assert_eq!(pool.status.bytes_total, Some(1000));
        assert_eq!(fixture.calls(), ["pool 1 on testhost"]);

        fixture.apply(Kind::Tenant, "a", json!({"pool": "p"}));
        fixture.delete(Kind::Pool, "p", false);
        pools.reconcile("p").unwrap();
        let kept = fixture.read::<Pool>("p");
        assert!(!kept.metadata.deletion_requested);
        assert_eq!(kept.status.common.condition("Deleted").unwrap().reason, "InUse");

        fixture.forget(Kind::Tenant, "a");
        fixture.delete(Kind::Pool, "p", false);
        pools.reconcile("p").unwrap();
        assert!(fixture.gone(Kind::Pool, "p"));
        assert_eq!(fixture.calls(), ["remove pool 1"]);
        pools.reconcile("p").unwrap();
    }

    #[test]
    fn what_a_bucket_cannot_is_told_in_the_status() {
        let fixture = Fixture::new();
        let spec = json!({"s3": {"bucket": "data", "region": "eu-west-1", "credentials": {"env": {}}}});
        fixture.apply(Kind::Pool, "p", spec);
        PoolReconciler::new(fixture.context()).reconcile("p").unwrap();
        let pool = fixture.read::<Pool>("p");
        let ready = pool.status.common.condition("Ready").unwrap();
        assert_eq!((ready.status, ready.message.as_str()), (Truth::True, "the pool is in use; it forgets"));
        assert_eq!((pool.status.bytes_total, pool.status.s3.unwrap().notes.len()), (None, 1));
        assert_eq!(fixture.calls(), ["pool 1 in s3://data"]);
    }

    #[test]
    fn a_bad_directory_is_told_in_the_status() {
        let fixture = Fixture::new();
        fixture.apply(Kind::Pool, "p", json!({"posix": {"path": "/nowhere/at/all"}}));
        PoolReconciler::new(fixture.context()).reconcile("p").unwrap();
        let status = fixture.read::<Pool>("p").status;
        assert_eq!(status.common.condition("Ready").unwrap().reason, "BadDirectory");
        assert!(fixture.calls().is_empty());
    }
}
