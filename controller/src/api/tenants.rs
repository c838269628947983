//! What can be done with one tenant at once, by the operator or an owner: replacing its VMDS, dropping a share that
//! others have injected into its tree.

use std::path::PathBuf;

use address_map::ids::TenantId;
use address_map::name::LogicalPath;
use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use serde::{Deserialize, Serialize};

use super::resources::{Question, query};
use super::{Api, ApiError, Caller, ErrorKind, Result, find};
use crate::resource::{Kind, Reference, Resource, Share, Tenant};
use crate::services::{MountObserved, MountService};
use crate::store::Store;

/// A VMDS that was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeView {
    /// Whose.
    pub tenant: String,
    /// Where the tenant is mounted.
    pub dirs: Vec<PathBuf>,
    /// The process that answered before; 0: there was none.
    pub pid_before: u32,
    /// The process that answers now.
    pub pid: u32,
    /// How many processes have answered so far.
    pub generation: u32,
}

/// A share that was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DropView {
    /// Whose tree it was in.
    pub tenant: String,
    /// Where.
    pub path: String,
    /// Mounts that forgot it.
    pub mounts_dropped: u32,
}

pub(super) async fn upgrade(
    State(api): State<Api>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
) -> Result<Json<UpgradeView>> {
    let mounts = api.services.mounts.clone();
    let upgraded = api.store.run(move |store| {
        let tenant = own(store, caller, &name)?;
        let id = TenantId(tenant.status.tenant_id);
        let before = observed(&*mounts, id).first().map_or(0, |mount| mount.pid);
        mounts.upgrade(id)?;
        let now = observed(&*mounts, id);
        let (pid, generation) = now.first().map_or((0, 0), |mount| (mount.pid, mount.generation));
        let dirs = now.into_iter().map(|mount| mount.dir).collect();
        Ok::<_, ApiError>(UpgradeView { tenant: name, dirs, pid_before: before, pid, generation })
    });
    Ok(Json(upgraded.await?))
}

fn observed(mounts: &dyn MountService, id: TenantId) -> Vec<MountObserved> {
    mounts.observe().into_iter().filter(|mount| mount.tenant == id).collect()
}

/// The tenant, if the caller may act for it; otherwise there is none.
fn own(store: &Store, caller: Caller, name: &str) -> Result<Resource<Tenant>> {
    Ok(find(store, caller, Kind::Tenant, name)?.typed::<Tenant>()?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DropQuery {
    path: String,
}

pub(super) async fn drop_share(
    State(api): State<Api>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
    question: Question<DropQuery>,
) -> Result<Json<DropView>> {
    let DropQuery { path } = query(question)?;
    let (map, queues) = (api.services.map.clone(), api.queues.clone());
    let dropped = api.store.run(move |store| {
        let tenant = own(store, caller, &name)?;
        let invalid =
            |error| ApiError::new(ErrorKind::Invalid, format!("'{path}' is not a path of a tenant: {error}"));
        let logical = LogicalPath::parse(path.as_bytes()).map_err(invalid)?;
        let dropped = map.drop_share(TenantId(tenant.status.tenant_id), &logical)?;
        // Its reconciler sees that it is gone, and tells the owner.
        for object in store.list(&[Kind::Share])?.1 {
            if object.typed::<Share>().is_ok_and(|share| share.status.share_id == dropped.id.0) {
                queues.add(&Reference::new(Kind::Share, object.name()));
            }
        }
        let (path, mounts_dropped) = (logical.to_string(), dropped.mounts_dropped);
        Ok::<_, ApiError>(DropView { tenant: name, path, mounts_dropped })
    });
    Ok(Json(dropped.await?))
}
