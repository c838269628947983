//! Waiting until something has come about, for a bounded time, telling a terminal what is waited for.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

use super::client::encoded;
use super::output::harmless;
use super::{CliError, Run};
use crate::api::{ErrorKind, WatchChange};
use crate::resource::{Manifest, Object, Truth};

/// What is to be thought of a resource while waiting.
pub(super) enum State {
    /// It has come about.
    Done,
    /// It will not, unless somebody changes something: why.
    Failed(String),
    /// Not yet: why.
    Pending(String),
}

/// The state of waiting for the condition of a type.
pub(super) fn reached(object: &Object, condition: &str) -> State {
    let common = object.common();
    let current = common.observed_generation == object.metadata.generation;
    match common.condition(condition).filter(|_| current) {
        None => State::Pending("the controller has not looked yet".to_owned()),
        Some(c) if c.status == Truth::True => State::Done,
        Some(c) if c.status == Truth::False => State::Failed(c.message.clone()),
        Some(c) => State::Pending(c.message.clone()),
    }
}

/// The state of waiting for readiness.
pub(super) fn ready(object: &Object) -> State {
    reached(object, object.kind.info().ready)
}

/// The same for somebody who knows that what is missing is on its way.
pub(super) fn ready_in_the_end(object: &Object) -> State {
    match ready(object) {
        State::Failed(why) => State::Pending(why),
        other => other,
    }
}

/// How a wait ended that did not end well.
enum Ended {
    Gone,
    Failed(String),
    TimedOut(String),
    Error(CliError),
}

/// Waits until `state` says that `object` is done.
pub(super) async fn until(
    run: &Run,
    object: &Object,
    state: impl Fn(&Object) -> State,
) -> Result<Object, CliError> {
    let (kind, name) = (object.kind, object.name());
    follow(run, object, state).await.map_err(|ended| match ended {
        Ended::Gone => CliError::new(format!("the {kind} '{name}' was deleted meanwhile")),
        Ended::Failed(why) => CliError::failed(why),
        Ended::TimedOut(why) => {
            CliError::new(format!("the {kind} '{name}' is not ready: {why}")).hint(format!(
                "waited {}s; it is still being worked on, look at it with: vmdsctl get {kind} {name}",
                run.timeout.as_secs()
            ))
        }
        Ended::Error(error) => error,
    })
}

/// Waits until `object`, whose deletion was asked for, is gone.
pub(super) async fn until_gone(run: &Run, object: &Object) -> Result<(), CliError> {
    let (kind, name) = (object.kind, object.name());
    let state = |object: &Object| {
        let common = object.common();
        if !object.metadata.deletion_requested {
            let why = common.condition("Deleted").map(|c| c.message.clone());
            return State::Failed(why.unwrap_or_else(|| "the deletion was withdrawn".to_owned()));
        }
        let why = common.condition(kind.info().ready).map(|c| c.message.clone());
        State::Pending(why.unwrap_or_else(|| "it is being deleted".to_owned()))
    };
    match follow(run, object, state).await {
        Ok(_) | Err(Ended::Gone) => Ok(()),
        Err(Ended::Failed(why)) => Err(CliError::failed(why)),
        Err(Ended::TimedOut(why)) => {
            Err(CliError::new(format!("the {kind} '{name}' is not gone yet: {why}"))
                .hint(format!("waited {}s; it is still being worked on", run.timeout.as_secs())))
        }
        Err(Ended::Error(error)) => Err(error),
    }
}

async fn follow(run: &Run, object: &Object, state: impl Fn(&Object) -> State) -> Result<Object, Ended> {
    let deadline = Instant::now() + run.timeout;
    let mut progress = Progress::new(&format!("{} {}", object.kind, object.name()));
    loop {
        match watch(run, object, &state, deadline, &mut progress).await {
            Ok(Some(done)) => return Ok(done),
            // The controller ended the stream (it may be restarting): take it up again.
            Ok(None) => tokio::time::sleep(PAUSE_BEFORE_NEXT_TRY).await,
            Err(ended) => return Err(ended),
        }
    }
}

/// Pause before a stream that ended is taken up again.
const PAUSE_BEFORE_NEXT_TRY: Duration = Duration::from_millis(200);

async fn watch(
    run: &Run,
    object: &Object,
    state: &impl Fn(&Object) -> State,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<Option<Object>, Ended> {
    let path = format!("/v1/{}?watch=1&name={}", object.kind.info().plural, encoded(object.name()));
    let late = |progress: &Progress| Ended::TimedOut(progress.last.clone());
    let opened = tokio::time::timeout_at(deadline, run.client.watch(&path)).await;
    let mut changes = opened.map_err(|_| late(progress))?.map_err(Ended::Error)?;
    let mut seen = false;
    loop {
        let next = tokio::time::timeout_at(deadline, changes.next()).await.map_err(|_| late(progress))?;
        // A connection that was lost is taken up again like a stream that ended.
        let Ok(Some((_, line))) = next else { return Ok(None) };
        match (line.change, line.object) {
            (WatchChange::Put, Some(current)) if current.metadata.uid == object.metadata.uid => {
                seen = true;
                match state(&current) {
                    State::Done => return Ok(Some(current)),
                    State::Failed(why) => return Err(Ended::Failed(why)),
                    State::Pending(why) => progress.tell(&why),
                }
            }
            (WatchChange::Put | WatchChange::Deleted, _) => return Err(Ended::Gone),
            // What is there is told before the first bookmark.
            (WatchChange::Bookmark, _) if !seen => return Err(Ended::Gone),
            (WatchChange::Bookmark, _) => {}
            (WatchChange::Error, _) => return Ok(None),
        }
    }
}

/// Wishes for a new resource and waits for it; one that will not come about is taken back.
pub(super) async fn make(run: &Run, manifest: &Manifest) -> Result<Object, CliError> {
    let (Some(kind), Some(name)) = (manifest.kind, &manifest.metadata.name) else {
        return Err(CliError::new("a resource needs a kind and a name"));
    };
    let (outcome, object) = run.client.put(kind, name, &manifest.clone().at_version(0)).await?;
    match until(run, &object, ready).await {
        Err(error) if error.is_final() && outcome == "created" => {
            take_back(run, &object).await;
            Err(error)
        }
        ended => ended,
    }
}

/// Takes a resource back and waits until it is gone, so that the same can be tried again right away.
async fn take_back(run: &Run, object: &Object) {
    let taken_back = async {
        let going = run.client.delete(object.kind, object.name(), "").await?;
        until_gone(run, &going).await
    };
    if let Err(error) = taken_back.await
        && error.kind != Some(ErrorKind::NotFound)
    {
        eprintln!(
            "warning: the {} '{}' could not be taken back: {}",
            object.kind,
            object.name(),
            error.message
        );
    }
}

/// One line on a terminal that says what is waited for, and goes away in the end.
pub(super) struct Progress {
    what: String,
    last: String,
    on_terminal: bool,
}

impl Progress {
    pub(super) fn new(what: &str) -> Self {
        let last = "the controller has not looked yet".to_owned();
        Self { what: what.to_owned(), last, on_terminal: std::io::stderr().is_terminal() }
    }

    pub(super) fn tell(&mut self, why: &str) {
        self.last = why.to_owned();
        if self.on_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[Kwaiting for {}: {}", self.what, harmless(why));
        }
    }
}

impl Progress {
    /// Takes the line away, until there is another one.
    pub(super) fn clear(&self) {
        if self.on_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
