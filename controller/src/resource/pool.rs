//! `Pool`: storage that tenants' bytes live in.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::kind::{NAME_MAX, check_plain_name};
use super::{Common, Kind, Problem, Reference, Resource, ResourceType, human_bytes};

/// The kind.
#[derive(Debug)]
pub struct Pool;

/// What is wanted of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolSpec {
    /// A directory.
    pub posix: PosixSpec,
}

/// A directory on a local disk or a mounted distributed file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PosixSpec {
    /// The directory; it must exist and belong to the controller alone.
    pub path: PathBuf,
    /// The host whose disk it is, told to job managers; absent: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// What a pool is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Its number, for ever; given to no other pool.
    pub pool_id: u32,
    /// Its size, once looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
    /// What was free when last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_free: Option<u64>,
    /// Observed generation and conditions: `Ready`.
    #[serde(flatten)]
    pub common: Common,
}

/// Whether a path is absolute and free of `..`.
pub(super) fn is_plain_absolute(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)))
}

impl ResourceType for Pool {
    const KIND: Kind = Kind::Pool;
    const COLUMNS: &'static [&'static str] = &["NAME", "ID", "PATH", "HOST", "SIZE", "FREE"];
    type Spec = PoolSpec;
    type Status = PoolStatus;

    fn born(number: u64) -> Option<PoolStatus> {
        let pool_id = u32::try_from(number).ok()?;
        Some(PoolStatus { pool_id, bytes_total: None, bytes_free: None, common: Common::default() })
    }

    fn restarted(status: &mut PoolStatus) {
        status.common.forget_after_restart(Self::READY);
    }

    fn common(status: &PoolStatus) -> &Common {
        &status.common
    }

    fn common_mut(status: &mut PoolStatus) -> &mut Common {
        &mut status.common
    }

    fn check(name: &str, spec: &PoolSpec, old: Option<&PoolSpec>) -> Vec<Problem> {
        let mut problems: Vec<Problem> = check_plain_name(name, NAME_MAX).into_iter().collect();
        let path = &spec.posix.path;
        if !is_plain_absolute(path) || path == Path::new("/") {
            problems.push(Problem::new(
                "spec.posix.path",
                "give the full path of a directory, not '/' and without '..'",
            ));
        }
        if spec.posix.host.as_deref() == Some("") {
            problems.push(Problem::new(
                "spec.posix.host",
                "a host has a name; leave the field out for this host",
            ));
        }
        if old.is_some_and(|old| old.posix.path != *path) {
            let sentence = "the directory of a pool cannot be changed, files would be lost; add another pool";
            problems.push(Problem::new("spec.posix.path", sentence));
        }
        problems
    }

    fn references(_spec: &PoolSpec, _status: &PoolStatus) -> Vec<Reference> {
        Vec::new()
    }

    fn row(pool: &Resource<Self>) -> Vec<String> {
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), human_bytes);
        vec![
            pool.metadata.name.clone(),
            pool.status.pool_id.to_string(),
            pool.spec.posix.path.display().to_string(),
            pool.spec.posix.host.clone().unwrap_or_else(|| "-".to_owned()),
            size(pool.status.bytes_total),
            size(pool.status.bytes_free),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pool_is_a_full_path_that_stays() {
        let admit = Kind::Pool.info().admit;
        let good = json!({"posix": {"path": "/data/pool"}});
        assert!(admit("p", &good, None).is_ok());
        for path in ["/", "data", "/a/../b", ""] {
            let error = admit("p", &json!({"posix": {"path": path}}), None).unwrap_err();
            assert_eq!(error.0[0].field, "spec.posix.path", "{path}");
        }
        let moved = admit("p", &json!({"posix": {"path": "/data/other"}}), Some(&good)).unwrap_err();
        assert!(moved.to_string().contains("cannot be changed"), "{moved}");
        assert!(admit("p", &json!({}), None).unwrap_err().to_string().contains("posix"));
    }
}
