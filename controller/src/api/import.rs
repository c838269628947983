//! `POST /v1/tenants/{tenant}/import`: objects of a bucket become files of a tenant. For the operator: whose objects
//! they are is not for a tenant to say.

use address_map::ids::{PoolId, TenantId};
use address_map::name::LogicalPath;
use axum::extract::{ConnectInfo, Path, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::body::JsonBody;
use super::long::{LongLine, stream};
use super::overview::no_such_route;
use super::{Api, ApiError, Caller, ErrorKind, Result, find};
use crate::resource::{Kind, Pool, Tenant};
use crate::services::{ImportOrder, ImportSummary};

/// A line of an import. Nothing is found.
pub type ImportLine = LongLine<(), ImportView, ImportView>;

/// What is to be imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImportWish {
    /// The bucket, which must be that of a pool.
    pub bucket: String,
    /// What the keys begin with, as a directory; empty: all.
    #[serde(default)]
    pub prefix: String,
    /// The pool, where several have this bucket.
    #[serde(default)]
    pub pool: Option<String>,
    /// The tenant's directory.
    pub path: String,
    /// Owner; that of the root directory unless given.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Group; the same.
    #[serde(default)]
    pub gid: Option<u32>,
    /// Permission bits of files, at most `0o777`.
    pub mode: u32,
    /// Directories are listed when somebody looks into them.
    #[serde(default)]
    pub lazy: bool,
}

/// How far an import has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportView {
    /// Files that were made.
    pub files: u64,
    /// Directories that were made.
    pub directories: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Objects left out: VMDS's own, or with keys that are no text.
    pub skipped: u64,
}

impl From<ImportSummary> for ImportView {
    fn from(so_far: ImportSummary) -> Self {
        let ImportSummary { files, directories, bytes, skipped, .. } = so_far;
        Self { files, directories, bytes, skipped }
    }
}

pub(super) async fn import(
    State(api): State<Api>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
    JsonBody(wish): JsonBody<ImportWish>,
) -> Result<Response> {
    if !caller.is_operator() {
        return Err(no_such_route().await);
    }
    let order = api.store.run(move |store| {
        let tenant = find(store, caller, Kind::Tenant, &name)?.typed::<Tenant>()?;
        let pool = match &wish.pool {
            Some(pool) => Some(find(store, caller, Kind::Pool, pool)?.typed::<Pool>()?),
            None => None,
        };
        let invalid = |sentence: String| ApiError::new(ErrorKind::Invalid, sentence);
        let path = LogicalPath::parse(wish.path.as_bytes())
            .map_err(|error| invalid(format!("'{}' is not a path of a tenant: {error}", wish.path)))?;
        if wish.mode > 0o777 {
            return Err(invalid("mode: set-id bits are not given to what is imported".to_owned()));
        }
        Ok(ImportOrder {
            tenant: TenantId(tenant.status.tenant_id),
            path,
            bucket: wish.bucket,
            prefix: wish.prefix,
            pool: pool.map(|pool| PoolId(pool.status.pool_id)),
            uid: wish.uid,
            gid: wish.gid,
            mode: wish.mode,
            lazy: wish.lazy,
        })
    });
    let order = order.await?;
    let map = api.services.map.clone();
    Ok(stream(&api, move |teller| {
        let mut tell = |so_far: ImportSummary| teller.tell::<ImportLine>(&LongLine::Progress(so_far.into()));
        let line = match map.import(&order, &mut tell) {
            Ok(done) if done.complete => LongLine::Done(done.into()),
            // Nobody listens, or the controller goes down.
            Ok(_) => return,
            Err(error) => LongLine::Error(ApiError::from(error).0),
        };
        teller.tell::<ImportLine>(&line);
    }))
}
