//! Questions that are not about one resource: status, metrics, health, where a file is, whether the map is sound.

use std::collections::BTreeMap;
use std::path::PathBuf;

use address_map::attr::FileKind;
use address_map::ids::TenantId;
use address_map::name::LogicalPath;
use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::resources::{Question, query, visible};
use super::{Api, ApiError, Caller, ErrorKind, Result, find};
use crate::resource::{Kind, Mount, Object, Tenant};
use crate::services::{CheckSummary, Located};

/// The content type of metrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The controller at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    /// Version of the program.
    pub version: String,
    /// How long it has been running, in seconds.
    pub uptime_seconds: u64,
    /// Version of the store.
    pub resource_version: u64,
    /// How many resources there are, by plural of the kind.
    pub resources: BTreeMap<String, KindCount>,
    /// The mounts.
    pub mounts: Vec<MountView>,
}

/// How many resources of a kind there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KindCount {
    /// All.
    pub total: usize,
    /// Those that are what they should be.
    pub ready: usize,
}

/// A mount at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountView {
    /// Whose.
    pub tenant: String,
    /// Where.
    pub dir: PathBuf,
    /// Requests are being answered.
    pub serving: bool,
    /// The process that answers.
    pub pid: Option<u32>,
    /// How many processes have answered so far.
    pub generation: u32,
    /// It is older than the controller, which has taken it over from one before.
    #[serde(default)]
    pub taken_over: bool,
}

pub(super) async fn status(
    State(api): State<Api>,
    ConnectInfo(caller): ConnectInfo<Caller>,
) -> Result<Json<StatusReport>> {
    let uptime_seconds = api.started.elapsed().as_secs();
    let report = api.store.run(move |store| {
        let (mut resources, mut mounts, mut newest) = (BTreeMap::new(), Vec::new(), 0);
        for &kind in Kind::ALL {
            let (version, objects) = visible(store, caller, kind)?;
            newest = version;
            let ready = objects.iter().filter(|object| object.is_ready()).count();
            resources.insert(kind.info().plural.to_owned(), KindCount { total: objects.len(), ready });
            if kind == Kind::Mount {
                for object in &objects {
                    let mount = object.typed::<Mount>()?;
                    mounts.push(MountView {
                        tenant: mount.spec.tenant,
                        dir: mount.spec.dir,
                        serving: mount.status.serving,
                        pid: mount.status.pid,
                        generation: mount.status.vmds_generation,
                        taken_over: mount.status.taken_over,
                    });
                }
            }
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok::<_, ApiError>(StatusReport {
            version,
            uptime_seconds,
            resource_version: newest,
            resources,
            mounts,
        })
    });
    Ok(Json(report.await?))
}

pub(super) async fn metrics(
    State(api): State<Api>,
    ConnectInfo(caller): ConnectInfo<Caller>,
) -> Result<impl IntoResponse> {
    if !caller.is_operator() {
        return Err(no_such_route().await);
    }
    for &kind in Kind::ALL {
        let objects = api.cache.list(kind);
        let ready = objects.iter().filter(|object| object.is_ready()).count();
        api.metrics.set_kind(kind, ready, objects.len() - ready, api.queues.of(kind).len());
        if kind == Kind::Mount {
            let serving = objects.iter().filter(|object| serves(object)).count();
            api.metrics.set_mounts(serving, objects.len() - serving);
        }
    }
    api.metrics.set_store_version(api.store.version());
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], api.metrics.text()))
}

fn serves(object: &Object) -> bool {
    object.status.get("serving").and_then(serde_json::Value::as_bool).unwrap_or(false)
}

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

pub(super) async fn no_such_route() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "there is nothing here, or not for this method")
        .hint("try GET /v1/status")
}

/// Where a file really is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocatedView {
    /// What it is: `file`, `directory`, ...
    pub kind: String,
    /// Its size, bytes.
    pub size: u64,
    /// Where its bytes are, in order.
    pub ranges: Vec<RangeView>,
}

/// A piece of a file and its global address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RangeView {
    /// First byte within the file.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// Name of the pool.
    pub pool: String,
    /// Key of the object within the pool.
    pub key: String,
    /// The backing file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The host whose disk it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl From<Located> for LocatedView {
    fn from(located: Located) -> Self {
        let kind = match located.kind {
            FileKind::File => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink => "symlink",
            FileKind::Fifo => "fifo",
            FileKind::Socket => "socket",
            FileKind::CharDevice => "charDevice",
            FileKind::BlockDevice => "blockDevice",
        };
        let range = |r: crate::services::GlobalRange| {
            let (offset, length) = (r.offset, r.length);
            RangeView { offset, length, pool: r.pool, key: r.key, path: r.path, host: r.host }
        };
        let ranges = located.ranges.into_iter().map(range).collect();
        Self { kind: kind.to_owned(), size: located.size, ranges }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LocateQuery {
    path: String,
}

pub(super) async fn locate(
    State(api): State<Api>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
    question: Question<LocateQuery>,
) -> Result<Json<LocatedView>> {
    let LocateQuery { path } = query(question)?;
    let map = api.services.map.clone();
    let located = api.store.run(move |store| {
        let tenant = find(store, caller, Kind::Tenant, &name)?.typed::<Tenant>()?;
        let invalid =
            |error| ApiError::new(ErrorKind::Invalid, format!("'{path}' is not a path of a tenant: {error}"));
        let path = LogicalPath::parse(path.as_bytes()).map_err(invalid)?;
        Ok::<_, ApiError>(map.locate(TenantId(tenant.status.tenant_id), &path)?)
    });
    Ok(Json(located.await?.into()))
}

/// What a check of the map found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// Tenants looked at.
    pub tenants: u64,
    /// Inodes looked at.
    pub inodes: u64,
    /// Directory entries looked at.
    pub entries: u64,
    /// One sentence for each thing wrong.
    pub problems: Vec<String>,
}

impl From<CheckSummary> for CheckReport {
    fn from(found: CheckSummary) -> Self {
        Self {
            tenants: found.tenants,
            inodes: found.inodes,
            entries: found.entries,
            problems: found.problems,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckQuery {
    tenant: Option<String>,
}

pub(super) async fn check(
    State(api): State<Api>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    question: Question<CheckQuery>,
) -> Result<Json<CheckReport>> {
    let CheckQuery { tenant } = query(question)?;
    if !caller.is_operator() {
        return Err(no_such_route().await);
    }
    let map = api.services.map.clone();
    let found = api.store.run(move |store| {
        let id = match tenant {
            Some(name) => {
                let tenant = find(store, caller, Kind::Tenant, &name)?.typed::<Tenant>()?;
                Some(TenantId(tenant.status.tenant_id))
            }
            None => None,
        };
        Ok::<_, ApiError>(map.check(id)?)
    });
    Ok(Json(found.await?.into()))
}
