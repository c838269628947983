//! The HTTP API on a Unix socket: resources in and out as JSON, changes as they happen, and a few questions.
//!
//! | request | does |
//! |---|---|
//! | `GET /v1/{kind}` | lists; with `watch=1[&from=N][&name=X]` streams changes, one JSON object per line |
//! | `GET`, `PUT`, `DELETE /v1/{kind}/{name}` | reads, wishes for, asks to go away (`purge=1`, `lazy=1`) |
//! | `POST /v1/mounts[?wait=S]` | mounts and answers when it serves, or undoes it and says why not |
//! | `GET /v1/tenants/{tenant}/locate?path=` | where a file really is |
//! | `POST /v1/tenants/{tenant}/upgrade` | replaces its VMDS by the program as it is now |
//! | `POST /v1/tenants/{tenant}/drop?path=` | removes a share from its tree |
//! | `POST /v1/tenants/{tenant}/import` | makes objects of a bucket its files, line by line |
//! | `POST /v1/check[?tenant=]` | looks for contradictions in the map |
//! | `POST /v1/pools/{pool}/check?grace=S[&repair=1]` | compares a pool in an object store with the map, line by line |
//! | `GET /v1/status`, `/metrics`, `/healthz` | overviews |
//!
//! It writes wishes and reads what is; reconcilers do the work.

mod body;
mod caller;
mod error;
mod import;
mod listen;
mod long;
mod mounts;
mod overview;
mod pools;
mod resources;
mod tenants;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{get, post};
use tokio::sync::watch::Receiver;

pub use caller::Caller;
pub use error::{ApiError, ErrorBody, ErrorInfo, ErrorKind, Result};
pub use import::{ImportLine, ImportView, ImportWish};
pub use listen::{PeerListener, bind};
pub use long::LongLine;
pub use overview::{CheckReport, KindCount, LocatedView, MountView, RangeView, StatusReport};
pub use pools::{PoolCheckLine, PoolCheckView, PoolProblemView};
pub use resources::List;
pub use tenants::{DropView, UpgradeView};
pub use watch::{WatchChange, WatchLine};

use crate::informer::Cache;
use crate::metrics::{Metrics, RequestLabels};
use crate::reconcile::Queues;
use crate::resource::{Kind, Object, Tenant};
use crate::services::Services;
use crate::store::Store;

/// Header of the answer to `PUT`: `created`, `configured` or `unchanged`.
pub const OUTCOME_HEADER: &str = "vmds-outcome";

/// What requests are answered from.
#[derive(Clone)]
pub struct Api {
    /// The resources.
    pub store: Arc<Store>,
    /// The services.
    pub services: Services,
    /// The copy of all resources, for overviews.
    pub cache: Arc<Cache>,
    /// The queues, for overviews.
    pub queues: Arc<Queues>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// When the controller started.
    pub started: Instant,
    /// Becomes true when the controller goes down: streams end then.
    pub stopping: Receiver<bool>,
}

impl Api {
    /// The routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1/{kind}", get(resources::list).post(mounts::create))
            .route("/v1/{kind}/{name}", get(resources::read).put(resources::put).delete(resources::delete))
            .route("/v1/tenants/{tenant}/locate", get(overview::locate))
            .route("/v1/tenants/{tenant}/upgrade", post(tenants::upgrade))
            .route("/v1/tenants/{tenant}/drop", post(tenants::drop_share))
            .route("/v1/tenants/{tenant}/import", post(import::import))
            .route("/v1/pools/{pool}/check", post(pools::check))
            .route("/v1/check", post(overview::check))
            .route("/v1/status", get(overview::status))
            .route("/metrics", get(overview::metrics))
            .route("/healthz", get(overview::healthz))
            .fallback(overview::no_such_route)
            .method_not_allowed_fallback(overview::no_such_route)
            .layer(axum::middleware::from_fn_with_state(self.clone(), count))
            .with_state(self)
    }

    /// Serves requests until the controller goes down.
    ///
    /// # Errors
    /// The socket fails.
    pub async fn serve(self, listener: PeerListener) -> std::io::Result<()> {
        let mut stopping = self.stopping.clone();
        let service = self.router().into_make_service_with_connect_info::<Caller>();
        axum::serve(listener, service)
            .with_graceful_shutdown(async move {
                let _ = stopping.wait_for(|stop| *stop).await;
            })
            .await
    }
}

async fn count(State(api): State<Api>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let response = next.run(request).await;
    let labels = RequestLabels::new(method.as_str(), response.status().as_u16());
    api.metrics.requests.get_or_create(&labels).inc();
    response
}

/// The kind that a URL names.
fn kind_of(word: &str) -> Result<Kind> {
    Kind::parse(word).ok_or_else(|| {
        let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.info().plural).collect();
        let message = format!("there are no resources of kind '{word}'");
        ApiError::new(ErrorKind::NotFound, message).hint(format!("known kinds: {}", known.join(", ")))
    })
}

/// Whether the caller may act for a tenant. Blocks.
fn owns(store: &Store, caller: Caller, tenant: &str) -> Result<bool> {
    Ok(store.read::<Tenant>(tenant)?.is_some_and(|tenant| caller.owns(&tenant)))
}

/// Whether a resource exists for the caller. Blocks.
fn sees(store: &Store, caller: Caller, object: &Object) -> bool {
    caller.sees(object, |tenant| owns(store, caller, tenant).unwrap_or(false))
}

/// The resource, if it exists for the caller. Blocks.
fn find(store: &Store, caller: Caller, kind: Kind, name: &str) -> Result<Object> {
    let found = store.get(kind, name)?.filter(|object| sees(store, caller, object));
    found.ok_or_else(|| ApiError::not_found(kind, name))
}
