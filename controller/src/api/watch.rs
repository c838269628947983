//! `GET /v1/{kind}?watch=1`: changes as they happen, one JSON object per line.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::body::Lines;
use super::resources::visible;
use super::{Api, ApiError, Caller, ErrorInfo, Result, sees};
use crate::resource::{Kind, Object};
use crate::store::{Change, Event, Store};
use crate::watch::Watch;

/// Lines that a client can be behind before the watch waits for it.
const LINES_AHEAD: usize = 64;

/// Time between bookmarks: how soon a client that is gone is noticed, and a quiet connection is known to live.
const BOOKMARK_EVERY: Duration = Duration::from_secs(10);

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WatchChange {
    /// The resource was made or changed.
    Put,
    /// The resource is gone; this is how it last was.
    Deleted,
    /// Nothing changed up to this version.
    Bookmark,
    /// The watch has ended.
    Error,
}

/// A line of a watch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchLine {
    /// What it says.
    #[serde(rename = "type")]
    pub change: WatchChange,
    /// Everything up to this version has been told; a watch can be taken up from here.
    pub resource_version: u64,
    /// The resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Object>,
    /// Why the watch has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
}

impl WatchLine {
    fn bytes(&self) -> Bytes {
        let mut line = serde_json::to_vec(self).expect("a line can always be written as JSON");
        line.push(b'\n');
        line.into()
    }
}

/// Answers with the changes after version `from`; without it, with all resources and then their changes.
pub(super) async fn stream(
    api: Api,
    caller: Caller,
    kind: Kind,
    name: Option<String>,
    from: Option<u64>,
) -> Result<Response> {
    let (version, existing) = match from {
        Some(version) => (version, Vec::new()),
        None => {
            let name = name.clone();
            api.store.run(move |store| existing(store, caller, kind, name.as_deref())).await?
        }
    };
    let watch = Watch::new(&api.store, version);
    watch.check()?;
    let (sender, lines) = mpsc::channel(LINES_AHEAD);
    tokio::spawn(async move {
        let mut stopping = api.stopping.clone();
        let follow = Follow { api, caller, kind, name, sender };
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => {}
            _client_gone = follow.run(existing, watch) => {}
        }
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from(Lines(lines))).into_response())
}

/// What a watch begins with, and the version from which it goes on. Blocks.
fn existing(store: &Store, caller: Caller, kind: Kind, name: Option<&str>) -> Result<(u64, Vec<Object>)> {
    let Some(name) = name else { return visible(store, caller, kind) };
    // From before the look: what happens in between is told twice rather than not at all.
    let version = store.version();
    let one = store.get(kind, name)?.filter(|object| sees(store, caller, object));
    Ok((version, one.map(|object| caller.view(object)).into_iter().collect()))
}

/// One client's watch.
struct Follow {
    api: Api,
    caller: Caller,
    kind: Kind,
    name: Option<String>,
    sender: mpsc::Sender<Bytes>,
}

/// The client has closed its connection.
struct ClientGone;

impl Follow {
    async fn run(self, existing: Vec<Object>, mut watch: Watch) -> std::result::Result<(), ClientGone> {
        let begin = watch.position();
        for object in existing.into_iter().filter(|object| self.concerns(object)) {
            self.send(WatchChange::Put, begin, Some(object)).await?;
        }
        let mut bookmark = tokio::time::interval(BOOKMARK_EVERY);
        loop {
            tokio::select! {
                next = watch.next() => match next {
                    Ok(event) => self.tell(event).await?,
                    Err(gone) => {
                        let error = Some(ApiError::from(gone).0);
                        let version = watch.position();
                        let line =
                            WatchLine { change: WatchChange::Error, resource_version: version, object: None, error };
                        return self.sender.send(line.bytes()).await.map_err(|_| ClientGone);
                    }
                },
                _ = bookmark.tick() => self.send(WatchChange::Bookmark, watch.position(), None).await?,
            }
        }
    }

    fn concerns(&self, object: &Object) -> bool {
        object.kind == self.kind && self.name.as_ref().is_none_or(|name| name == object.name())
    }

    async fn tell(&self, event: Event) -> std::result::Result<(), ClientGone> {
        if !self.concerns(&event.object) {
            return Ok(());
        }
        let (caller, object) = (self.caller, Arc::clone(&event.object));
        if !caller.is_operator() && !self.api.store.run(move |store| sees(store, caller, &object)).await {
            return Ok(());
        }
        let change = match event.change {
            Change::Put => WatchChange::Put,
            Change::Deleted => WatchChange::Deleted,
        };
        let object = caller.view(Object::clone(&event.object));
        self.send(change, event.version, Some(object)).await
    }

    async fn send(
        &self,
        change: WatchChange,
        version: u64,
        object: Option<Object>,
    ) -> std::result::Result<(), ClientGone> {
        let line = WatchLine { change, resource_version: version, object, error: None };
        self.sender.send(line.bytes()).await.map_err(|_| ClientGone)
    }
}
