//! `Pool`: storage that tenants' bytes live in.

mod s3;

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::kind::{NAME_MAX, check_plain_name};
use super::{Common, Kind, Problem, Reference, Resource, ResourceType, human_bytes};

pub(super) use s3::check_lease_seconds;
pub use s3::{CredentialsSpec, DiskCacheSpec, DiskCacheStatus, EtagForm, S3Capabilities, S3Spec, Versioning};

/// The kind.
#[derive(Debug)]
pub struct Pool;

/// What is wanted of a pool: one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "GivenPool")]
pub enum PoolSpec {
    /// A directory.
    Posix(PosixSpec),
    /// A bucket.
    S3(S3Spec),
}

/// A pool as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GivenPool {
    posix: Option<PosixSpec>,
    s3: Option<S3Spec>,
}

impl TryFrom<GivenPool> for PoolSpec {
    type Error = &'static str;

    fn try_from(given: GivenPool) -> Result<Self, Self::Error> {
        match (given.posix, given.s3) {
            (Some(posix), None) => Ok(Self::Posix(posix)),
            (None, Some(s3)) => Ok(Self::S3(s3)),
            _ => Err("say either posix (a directory) or s3 (a bucket)"),
        }
    }
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
    /// What was found out about its endpoint, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Capabilities>,
    /// What its disk cache holds, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_cache: Option<DiskCacheStatus>,
    /// Observed generation and conditions: `Ready`.
    #[serde(flatten)]
    pub common: Common,
}

impl PoolSpec {
    /// The directory, if it is one.
    pub fn posix(&self) -> Option<&PosixSpec> {
        match self {
            Self::Posix(posix) => Some(posix),
            Self::S3(_) => None,
        }
    }

    /// The bucket, if it is one.
    pub fn s3(&self) -> Option<&S3Spec> {
        match self {
            Self::S3(s3) => Some(s3),
            Self::Posix(_) => None,
        }
    }
}

impl PosixSpec {
    fn check(&self, old: Option<&PosixSpec>) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !is_plain_absolute(&self.path) || self.path == Path::new("/") {
            problems.push(Problem::new(
                "spec.posix.path",
                "give the full path of a directory, not '/' and without '..'",
            ));
        }
        if self.host.as_deref() == Some("") {
            problems.push(Problem::new(
                "spec.posix.host",
                "a host has a name; leave the field out for this host",
            ));
        }
        if old.is_some_and(|old| old.path != self.path) {
            let sentence = "the directory of a pool cannot be changed, files would be lost; add another pool";
            problems.push(Problem::new("spec.posix.path", sentence));
        }
        problems
    }
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
        Some(PoolStatus {
            pool_id,
            bytes_total: None,
            bytes_free: None,
            s3: None,
            disk_cache: None,
            common: Common::default(),
        })
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
        problems.extend(match spec {
            PoolSpec::Posix(posix) => posix.check(old.and_then(PoolSpec::posix)),
            PoolSpec::S3(s3) => s3.check(old.and_then(PoolSpec::s3)),
        });
        if old.is_some_and(|old| spec.posix().is_some() != old.posix().is_some()) {
            let sentence = "a directory cannot become a bucket, nor the other way round; add another pool";
            problems.push(Problem::new("spec", sentence));
        }
        problems
    }

    fn references(_spec: &PoolSpec, _status: &PoolStatus) -> Vec<Reference> {
        Vec::new()
    }

    fn row(pool: &Resource<Self>) -> Vec<String> {
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), human_bytes);
        let (place, host) = match &pool.spec {
            PoolSpec::Posix(posix) => (posix.path.display().to_string(), posix.host.clone()),
            PoolSpec::S3(s3) => (s3.url(), s3.endpoint.clone().or_else(|| s3.region.clone())),
        };
        vec![
            pool.metadata.name.clone(),
            pool.status.pool_id.to_string(),
            place,
            host.unwrap_or_else(|| "-".to_owned()),
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

    fn bucket() -> serde_json::Value {
        json!({"s3": {
            "bucket": "data", "prefix": "team/vmds", "endpoint": "http://127.0.0.1:9000", "pathStyle": true,
            "credentials": {"file": "/etc/vmds/keys", "profile": "p"}, "staging": "/var/stage",
        }})
    }

    #[test]
    fn a_pool_is_a_directory_or_a_bucket_and_stays_what_it_is() {
        let admit = Kind::Pool.info().admit;
        assert_eq!(admit("p", &bucket(), None).unwrap(), bucket());
        let posix = json!({"posix": {"path": "/data/pool"}});
        let both = json!({"posix": posix["posix"], "s3": bucket()["s3"]});
        let error = admit("p", &both, None).unwrap_err().to_string();
        assert!(error.contains("either posix (a directory) or s3 (a bucket)"), "{error}");
        let error = admit("p", &bucket(), Some(&posix)).unwrap_err().to_string();
        assert!(error.contains("cannot become"), "{error}");
        for (field, value) in [
            ("bucket", json!("other")),
            ("prefix", json!("")),
            ("endpoint", json!("http://127.0.0.1:9001")),
            ("staging", json!("/elsewhere")),
        ] {
            let mut moved = bucket();
            moved["s3"][field] = value;
            let error = admit("p", &moved, Some(&bucket())).unwrap_err().to_string();
            assert!(error.contains("cannot be changed"), "{field}: {error}");
        }
        let mut other_keys = bucket();
        other_keys["s3"]["credentials"] = json!({"env": {}});
        assert!(admit("p", &other_keys, Some(&bucket())).is_ok());
        let mut cached = bucket();
        cached["s3"]["diskCache"] = json!({"directory": "/var/cache/vmds", "bytes": 1 << 30});
        assert!(admit("p", &cached, Some(&bucket())).is_ok(), "a cache may come");
        assert!(admit("p", &bucket(), Some(&cached)).is_ok(), "and go");
    }

    #[test]
    fn buckets_that_cannot_be_are_refused_with_the_field() {
        let admit = Kind::Pool.info().admit;
        for (field, bad) in [
            ("bucket", vec!["ab", "Data", "a..b", "-ab", "1.2.3.4", "a/b", ""]),
            ("prefix", vec!["/a", "a/", "a//b", "a/../b", ".", "a b", "a?b"]),
            (
                "endpoint",
                vec!["host", "ftp://host", "http://u:p@host", "http://host/path", "http://host?a=b"],
            ),
            ("region", vec!["", "EU", "a b"]),
            ("staging", vec!["here", "/", "/a/../b"]),
            ("caFile", vec!["ca.pem"]),
        ] {
            for value in bad {
                let mut spec = bucket();
                spec["s3"][field] = json!(value);
                let error = admit("p", &spec, None).unwrap_err();
                assert_eq!(error.0[0].field, format!("spec.s3.{field}"), "{value}");
            }
        }
        for (field, bad) in [
            ("directory", json!({"directory": "/var/stage", "bytes": "1GiB"})),
            ("directory", json!({"directory": "/var/stage/cache", "bytes": "1GiB"})),
            ("directory", json!({"directory": "cache", "bytes": "1GiB"})),
            ("bytes", json!({"directory": "/var/cache/vmds", "bytes": 1000})),
        ] {
            let mut spec = bucket();
            spec["s3"]["diskCache"] = bad.clone();
            let error = admit("p", &spec, None).unwrap_err();
            assert_eq!(error.0[0].field, format!("spec.s3.diskCache.{field}"), "{bad}");
        }
        let mut nowhere = bucket();
        nowhere["s3"].as_object_mut().unwrap().remove("endpoint");
        assert_eq!(admit("p", &nowhere, None).unwrap_err().0[0].field, "spec.s3.region");
    }

    #[test]
    fn credentials_are_named_one_way_and_never_given() {
        let admit = Kind::Pool.info().admit;
        let with = |credentials: serde_json::Value| {
            let mut spec = bucket();
            spec["s3"]["credentials"] = credentials;
            admit("p", &spec, None).map(|full| full["s3"]["credentials"].clone())
        };
        for good in [json!({"env": {}}), json!({"imds": {}}), json!({"profile": "p"}), json!({"file": "/k"})]
        {
            assert_eq!(with(good.clone()).unwrap(), good);
        }
        for bad in [json!({}), json!({"env": {}, "imds": {}}), json!({"file": "k"}), json!({"env": {"a": 1}})]
        {
            assert!(with(bad).is_err());
        }
        let told = with(json!({"accessKey": "AK", "secretKey": "s3cret"})).unwrap_err();
        assert!(!told.to_string().contains("s3cret"), "{told}");
    }
}
