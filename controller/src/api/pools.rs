//! What can be done with one pool, by the operator: comparing it with the map.

use std::collections::HashMap;
use std::time::Duration;

use address_map::ids::PoolId;
use axum::extract::{ConnectInfo, Path, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::long::{LongLine, stream};
use super::overview::no_such_route;
use super::resources::{Question, query};
use super::{Api, ApiError, Caller, Result, find};
use crate::resource::{Kind, Pool, Tenant};
use crate::services::{
    PoolCheckEvent, PoolCheckOrder, PoolCheckSummary, PoolProblem, PoolProblemKind, ServiceError,
};
use crate::store::Store;

/// A line of a comparison of a pool with the map.
pub type PoolCheckLine = LongLine<PoolProblemView, PoolCheckView, PoolCheckView>;

/// How far a comparison has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolCheckView {
    /// Objects looked at.
    pub objects: u64,
    /// Files looked at.
    pub files: u64,
    /// Problems found.
    pub problems: u64,
    /// Orphans that are now to be deleted.
    pub repaired: u64,
}

/// Something that is wrong between a pool and the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolProblemView {
    /// What: `orphan`, `missing`, `wrongSize` or `wrongEtag`.
    pub problem: String,
    /// The tenant's name, or its number if there is none of that number.
    pub tenant: String,
    /// The object's key in the bucket.
    pub key: String,
    /// The file's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// A path of the file, for the first problems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Both sizes or ETags, or the object's size.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl From<PoolCheckSummary> for PoolCheckView {
    fn from(found: PoolCheckSummary) -> Self {
        let PoolCheckSummary { objects, files, problems, repaired } = found;
        Self { objects, files, problems, repaired }
    }
}

fn view(problem: PoolProblem, tenants: &HashMap<u32, String>) -> PoolProblemView {
    let PoolProblem { kind, tenant, key, file, detail } = problem;
    let kind = match kind {
        PoolProblemKind::Orphan => "orphan",
        PoolProblemKind::Missing => "missing",
        PoolProblemKind::WrongSize => "wrongSize",
        PoolProblemKind::WrongEtag => "wrongEtag",
    };
    let tenant = tenants.get(&tenant.0).cloned().unwrap_or_else(|| tenant.to_string());
    let (inode, path) = file.map_or((None, None), |(ino, path)| (Some(ino.0), path));
    PoolProblemView {
        problem: kind.to_owned(),
        tenant,
        key,
        inode,
        path: path.map(|path| path.to_string()),
        detail,
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolCheckQuery {
    /// Seconds.
    grace: u64,
    #[serde(default)]
    repair: u8,
}

pub(super) async fn check(
    State(api): State<Api>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
    question: Question<PoolCheckQuery>,
) -> Result<Response> {
    let PoolCheckQuery { grace, repair } = query(question)?;
    if !caller.is_operator() {
        return Err(no_such_route().await);
    }
    let found = api.store.run(move |store| {
        let pool = find(store, caller, Kind::Pool, &name)?.typed::<Pool>()?;
        Ok::<_, ApiError>((PoolId(pool.status.pool_id), tenants(store)?))
    });
    let (id, tenants) = found.await?;
    let order = PoolCheckOrder { id, grace: Duration::from_secs(grace), repair: repair != 0 };
    let pools = api.services.pools.clone();
    Ok(stream(&api, move |teller| {
        let mut tell = |event| {
            teller.tell::<PoolCheckLine>(&match event {
                PoolCheckEvent::Problem(problem) => LongLine::Found(view(problem, &tenants)),
                PoolCheckEvent::Progress(so_far) => LongLine::Progress(so_far.into()),
            })
        };
        let ended =
            pools.check_pool(&order, &mut tell).map_err(|error: ServiceError| ApiError::from(error).0);
        teller
            .tell::<PoolCheckLine>(&ended.map_or_else(LongLine::Error, |found| LongLine::Done(found.into())));
    }))
}

/// The names of all tenants, by number. Blocks.
fn tenants(store: &Store) -> Result<HashMap<u32, String>> {
    let (_, tenants) = store.list(&[Kind::Tenant])?;
    let named = |tenant: &crate::resource::Object| {
        let typed = tenant.typed::<Tenant>().ok()?;
        Some((typed.status.tenant_id, tenant.name().to_owned()))
    };
    Ok(tenants.iter().filter_map(named).collect())
}
