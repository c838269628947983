//! `POST /v1/mounts`: mount, and know whether it worked.
//!
//! A declared mount (`PUT`) that does not work is tried again for ever. Somebody who posts one waits for it: if it
//! does not work, it is undone.

use std::os::unix::fs::MetadataExt;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;

use super::body::JsonBody;
use super::resources::{Question, has_room, must_own, permit as permit_any, query, refuse, taken, wished};
use super::{Api, ApiError, Caller, ErrorKind, Result, kind_of, sees};
use crate::informer::Cache;
use crate::resource::{Kind, Manifest, Mount, Object, Truth, mount_name};
use crate::store::{Change, Outcome, Store, StoreError};
use crate::watch::Watch;

/// Longest wait for a mount to serve, in seconds.
const WAIT_MAX: u64 = 300;

/// Longest wait until a mount that failed is undone.
const UNDO_WITHIN: Duration = Duration::from_secs(5);

/// Whether a caller that is not the operator may wish for this mount. Blocks.
pub(super) fn permit(
    store: &Store,
    cache: &Cache,
    caller: Caller,
    name: &str,
    manifest: &Manifest,
    existing: Option<Object>,
) -> Result<()> {
    let spec = wished::<Mount>(name, manifest)?;
    must_own(store, caller, &spec.tenant)?;
    refuse(caller.refuses_mount(&spec), "spec")?;
    match existing {
        Some(mount) if !sees(store, caller, &mount) => Err(taken(Kind::Mount, name)),
        Some(mount) if mount.metadata.created_by != caller.uid => {
            let message = format!("the mount at {} was made by somebody else", spec.dir.display());
            Err(ApiError::new(ErrorKind::Conflict, message).hint("unmount it, then mount it yourself"))
        }
        Some(_) => Ok(()),
        None => {
            has_room(cache, &spec.tenant)?;
            own_directory(caller, &spec.dir)
        }
    }
}

/// Nobody but the operator mounts over what belongs to others. The agent looks again at what it really mounts on.
fn own_directory(caller: Caller, dir: &FsPath) -> Result<()> {
    let sentence = match std::fs::symlink_metadata(dir) {
        Ok(found) if found.is_dir() && found.uid() == caller.uid => return Ok(()),
        Ok(found) if found.is_dir() => "does not belong to you; mount on a directory of your own",
        Ok(_) => "is not a directory",
        Err(_) => "does not exist; make the directory first",
    };
    refuse(Some(format!("{} {sentence}", dir.display())), "spec.dir")
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MountQuery {
    #[serde(default)]
    wait: u64,
}

pub(super) async fn create(
    State(api): State<Api>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(kind): Path<String>,
    question: Question<MountQuery>,
    JsonBody(spec): JsonBody<Value>,
) -> Result<Response> {
    let (kind, asked) = (kind_of(&kind)?, query(question)?);
    if kind != Kind::Mount {
        let message = format!("a {kind} has a name: use PUT /v1/{}/NAME", kind.info().plural);
        return Err(ApiError::new(ErrorKind::BadRequest, message));
    }
    let cache = api.cache.clone();
    let (outcome, made) = api.store.run(move |store| wish(store, &cache, caller, spec)).await?;
    let status = if outcome == Outcome::Created { StatusCode::CREATED } else { StatusCode::OK };
    if asked.wait == 0 {
        return Ok((status, Json(caller.view(made))).into_response());
    }
    let patience = Duration::from_secs(asked.wait.min(WAIT_MAX));
    let ended = tokio::time::timeout(patience, serving(&api, &made)).await;
    match ended {
        Ok(Ok(object)) => Ok((status, Json(caller.view(object))).into_response()),
        Ok(Err(error)) => {
            if outcome == Outcome::Created {
                undo(&api, &made).await;
            }
            Err(error)
        }
        Err(_elapsed) => {
            let message = format!("the mount did not serve within {}s", patience.as_secs());
            let hint = format!("it is still being tried; look at it with: vmdsctl get mount {}", made.name());
            Err(ApiError::new(ErrorKind::Unavailable, message).hint(hint))
        }
    }
}

fn wish(store: &Store, cache: &Cache, caller: Caller, spec: Value) -> Result<(Outcome, Object)> {
    let dir = spec.get("dir").and_then(Value::as_str);
    let dir = dir.ok_or_else(|| ApiError::new(ErrorKind::Invalid, "spec.dir: a mount needs a directory"))?;
    let dir = dir.to_owned();
    let name = mount_name(FsPath::new(&dir));
    let manifest = Manifest::new(Kind::Mount, &name, spec).at_version(0);
    permit_any(store, cache, caller, Kind::Mount, &name, &manifest)?;
    must_own(store, caller, &wished::<Mount>(&name, &manifest)?.tenant)?;
    store.apply(Kind::Mount, &name, &manifest, caller.uid).map_err(|error| match error {
        StoreError::Exists { .. } => ApiError::new(
            ErrorKind::Conflict,
            format!("{dir} is the mount point of another tenant, or mounted with other options"),
        )
        .hint("change its options with --options remount,..., unmount it first, or choose another directory; see: vmdsctl get mounts"),
        other => other.into(),
    })
}

/// Waits until the mount serves.
///
/// # Errors
/// It cannot: the sentence says why.
async fn serving(api: &Api, made: &Object) -> Result<Object> {
    let unmounted = || {
        let message = format!("the mount '{}' was unmounted meanwhile", made.name());
        ApiError::new(ErrorKind::Conflict, message)
    };
    // From before the look: what happens in between is told.
    let mut watch = Watch::new(&api.store, api.store.version());
    let name = made.name().to_owned();
    let now = api.store.run(move |store| store.get(Kind::Mount, &name)).await?;
    let mut current = Arc::new(now.ok_or_else(unmounted)?);
    loop {
        if current.metadata.uid != made.metadata.uid || current.metadata.deletion_requested {
            return Err(unmounted());
        }
        let looked_at = current.common().observed_generation == current.metadata.generation;
        match current.readiness().filter(|_| looked_at) {
            Some(ready) if ready.status == Truth::True => return Ok(Object::clone(&current)),
            Some(ready) if ready.status == Truth::False => {
                return Err(ApiError::new(ErrorKind::Invalid, ready.message));
            }
            _ => {}
        }
        let event = watch.next().await?;
        if event.object.kind == Kind::Mount && event.object.name() == made.name() {
            if event.change == Change::Deleted {
                return Err(unmounted());
            }
            current = event.object;
        }
    }
}

/// Takes a mount back and waits until it is gone, so that the same can be tried again right away.
async fn undo(api: &Api, made: &Object) {
    let mut watch = Watch::new(&api.store, api.store.version());
    let (name, uid) = (made.name().to_owned(), made.metadata.uid);
    let gone = async {
        api.store.run(move |store| store.request_deletion(Kind::Mount, &name, None, true)).await?;
        loop {
            let event = watch.next().await?;
            if event.change == Change::Deleted && event.object.metadata.uid == uid {
                return Ok::<_, ApiError>(());
            }
        }
    };
    match tokio::time::timeout(UNDO_WITHIN, gone).await {
        Ok(Ok(())) => {}
        Ok(Err(ApiError(error))) => {
            tracing::warn!(
                name = made.name(),
                error = error.message,
                "a mount that failed could not be undone"
            );
        }
        Err(_elapsed) => tracing::warn!(name = made.name(), "a mount that failed is still being undone"),
    }
}
