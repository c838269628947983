//! Reading, listing, wishing for resources and asking them to go away.

use axum::Json;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use address_map::ids::TenantId;

use super::body::JsonBody;
use super::{
    Api, ApiError, Caller, ErrorKind, OUTCOME_HEADER, Result, find, kind_of, mounts, owns, sees, watch,
};
use crate::informer::Cache;
use crate::reconcile::tenant::{dependents, has_data, has_data_sentence, in_use_sentence, usage_or_none};
use crate::resource::{ApiVersion, Kind, Manifest, Object, Reference, Resource, ResourceType, Share, Tenant};
use crate::services::Services;
use crate::store::{Outcome, Store};

/// All resources of a kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List {
    /// The format.
    pub api_version: ApiVersion,
    /// `TenantList`, ...
    pub kind: String,
    /// The version of the store that shows exactly these; a watch begins here.
    pub resource_version: u64,
    /// The resources, by name.
    pub items: Vec<Object>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    #[serde(default)]
    watch: u8,
    from: Option<u64>,
    name: Option<String>,
}

pub(super) type Question<T> = std::result::Result<Query<T>, axum::extract::rejection::QueryRejection>;

/// The query of a URL, or the error for one that is not understood.
pub(super) fn query<T>(query: Question<T>) -> Result<T> {
    query.map(|Query(query)| query).map_err(|error| ApiError::new(ErrorKind::BadRequest, error.body_text()))
}

pub(super) async fn list(
    State(api): State<Api>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(kind): Path<String>,
    question: Question<ListQuery>,
) -> Result<Response> {
    let (kind, asked) = (kind_of(&kind)?, query(question)?);
    if asked.watch != 0 {
        return watch::stream(api, caller, kind, asked.name, asked.from).await;
    }
    let services = api.services.clone();
    let listed = api.store.run(move |store| {
        let (version, items) = visible(store, caller, kind)?;
        Ok::<_, ApiError>((version, items.into_iter().map(|object| with_usage(&services, object)).collect()))
    });
    let (version, items) = listed.await?;
    let kind = format!("{}List", kind.info().singular);
    Ok(Json(List { api_version: ApiVersion::V1, kind, resource_version: version, items }).into_response())
}

/// All resources of a kind as the caller may see them. Blocks.
pub(super) fn visible(store: &Store, caller: Caller, kind: Kind) -> Result<(u64, Vec<Object>)> {
    let (version, objects) = store.list(&[kind])?;
    let seen = objects.into_iter().filter(|object| sees(store, caller, object));
    Ok((version, seen.map(|object| caller.view(object)).collect()))
}

pub(super) async fn read(
    State(api): State<Api>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Json<Object>> {
    let kind = kind_of(&kind)?;
    let services = api.services.clone();
    let object = api
        .store
        .run(move |store| Ok::<_, ApiError>(with_usage(&services, find(store, caller, kind, &name)?)));
    Ok(Json(caller.view(object.await?)))
}

/// A tenant with what it uses now: its status tells what it used when its reconciler last looked. Blocks.
fn with_usage(services: &Services, mut object: Object) -> Object {
    if let Ok(tenant) = object.typed::<Tenant>()
        && object.kind == Kind::Tenant
        && let Ok(usage) = services.map.usage(TenantId(tenant.status.tenant_id))
    {
        object.status["usage"] = json!({"bytes": usage.bytes, "inodes": usage.inodes});
    }
    object
}

pub(super) async fn put(
    State(api): State<Api>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path((kind, name)): Path<(String, String)>,
    JsonBody(manifest): JsonBody<Manifest>,
) -> Result<Response> {
    let kind = kind_of(&kind)?;
    if manifest.kind.is_some_and(|given| given != kind) {
        return Err(ApiError::new(ErrorKind::BadRequest, "the kind in the body is not that of the URL"));
    }
    if manifest.metadata.name.as_ref().is_some_and(|given| *given != name) {
        return Err(ApiError::new(ErrorKind::BadRequest, "the name in the body is not that of the URL"));
    }
    let cache = api.cache.clone();
    let (outcome, object) = api
        .store
        .run(move |store| {
            permit(store, &cache, caller, kind, &name, &manifest)?;
            Ok::<_, ApiError>(store.apply(kind, &name, &manifest, caller.uid)?)
        })
        .await?;
    let (status, word) = match outcome {
        Outcome::Created => (StatusCode::CREATED, "created"),
        Outcome::Configured => (StatusCode::OK, "configured"),
        Outcome::Unchanged => (StatusCode::OK, "unchanged"),
    };
    Ok((status, [(OUTCOME_HEADER, word)], Json(caller.view(object))).into_response())
}

/// Most mounts of a tenant and shares from it, together, that its owners can make.
const HELD_BY_TENANT: usize = 4096;

/// Whether the caller may wish for this. Blocks.
pub(super) fn permit(
    store: &Store,
    cache: &Cache,
    caller: Caller,
    kind: Kind,
    name: &str,
    manifest: &Manifest,
) -> Result<()> {
    if caller.is_operator() {
        return Ok(());
    }
    let existing = store.get(kind, name)?;
    match kind {
        Kind::Pool | Kind::Tenant => Err(ApiError::new(
            ErrorKind::NotFound,
            format!("there is no {kind} '{name}' that you may change"),
        )),
        Kind::Share => {
            let spec = wished::<Share>(name, manifest)?;
            must_own(store, caller, &spec.from.tenant)?;
            match existing {
                Some(share) if !sees(store, caller, &share) => Err(taken(kind, name)),
                Some(_) => Ok(()),
                None => {
                    has_room(cache, &spec.from.tenant)?;
                    refuse(caller.refuses_share_name(name, &spec.from.tenant), "metadata.name")
                }
            }
        }
        Kind::Mount => mounts::permit(store, cache, caller, name, manifest, existing),
    }
}

/// The owners of a tenant cannot fill the store. Asked only about a tenant that the caller may act for; what others
/// share with it does not count.
pub(super) fn has_room(cache: &Cache, tenant: &str) -> Result<()> {
    let of_others = |held: &Reference| {
        let share = cache.get(held.kind, &held.name).filter(|object| object.kind == Kind::Share);
        share.is_some_and(|share| share.spec["from"]["tenant"] != tenant)
    };
    let held = cache.referring_to(&Reference::new(Kind::Tenant, tenant));
    if held.len() < HELD_BY_TENANT || held.iter().filter(|held| !of_others(held)).count() < HELD_BY_TENANT {
        return Ok(());
    }
    let message =
        format!("the tenant '{tenant}' has {HELD_BY_TENANT} mounts and shares, more are not possible");
    Err(ApiError::new(ErrorKind::Conflict, message).hint("delete some of them first"))
}

/// The spec of a manifest, checked.
pub(super) fn wished<T: ResourceType>(name: &str, manifest: &Manifest) -> Result<T::Spec> {
    let invalid = |message: String| ApiError::new(ErrorKind::Invalid, message);
    let full = (T::KIND.info().admit)(name, &manifest.spec, None).map_err(|e| invalid(e.to_string()))?;
    serde_json::from_value(full).map_err(|error| invalid(error.to_string()))
}

/// A tenant that the caller may not act for does not exist for it.
pub(super) fn must_own(store: &Store, caller: Caller, tenant: &str) -> Result<()> {
    if owns(store, caller, tenant)? { Ok(()) } else { Err(ApiError::not_found(Kind::Tenant, tenant)) }
}

pub(super) fn taken(kind: Kind, name: &str) -> ApiError {
    ApiError::new(ErrorKind::Conflict, format!("the name '{name}' is not available for a {kind}"))
        .hint("choose another one")
}

pub(super) fn refuse(sentence: Option<impl std::fmt::Display>, field: &str) -> Result<()> {
    sentence.map_or(Ok(()), |sentence| Err(ApiError::new(ErrorKind::Invalid, format!("{field}: {sentence}"))))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeleteQuery {
    #[serde(default)]
    purge: u8,
    #[serde(default)]
    lazy: u8,
    resource_version: Option<u64>,
}

pub(super) async fn delete(
    State(api): State<Api>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path((kind, name)): Path<(String, String)>,
    question: Question<DeleteQuery>,
) -> Result<Response> {
    let (kind, asked) = (kind_of(&kind)?, query(question)?);
    let services = api.services.clone();
    let object = api
        .store
        .run(move |store| {
            let object = find(store, caller, kind, &name)?;
            let may = caller.is_operator() || matches!(kind, Kind::Share | Kind::Mount);
            if !may {
                let message = format!("there is no {kind} '{name}' that you may delete");
                return Err(ApiError::new(ErrorKind::NotFound, message));
            }
            let forced = match kind {
                Kind::Tenant => asked.purge != 0,
                Kind::Mount => asked.lazy != 0,
                Kind::Pool | Kind::Share => false,
            };
            if kind == Kind::Tenant && !forced {
                nothing_to_lose(store, &services, &object.typed()?)?;
            }
            Ok(store.request_deletion(kind, &name, asked.resource_version, forced)?)
        })
        .await?;
    Ok((StatusCode::ACCEPTED, Json(caller.view(object))).into_response())
}

/// A tenant is deleted without being purged only if nobody loses anything. Blocks.
fn nothing_to_lose(store: &Store, services: &Services, tenant: &Resource<Tenant>) -> Result<()> {
    let conflict = |message| ApiError::new(ErrorKind::Conflict, message);
    let (blockers, _) = dependents(store, tenant.name())?;
    if !blockers.is_empty() {
        return Err(conflict(in_use_sentence(tenant.name(), &blockers)).hint(
            "unmount it and revoke its shares first, or pass --purge to end them together with its data",
        ));
    }
    let usage = usage_or_none(services.map.usage(TenantId(tenant.status.tenant_id)))?;
    if has_data(&usage) {
        return Err(
            conflict(has_data_sentence(tenant.name(), &usage)).hint("to delete all of it, pass --purge")
        );
    }
    Ok(())
}
