//! Loading one range of one object: asked again when the store or the network fails, never taken for complete when it
//! is not, never longer than a deadline.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use address_map::error::Refusal;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{CONTENT_RANGE, RANGE};
use hyper::{Request, Response, StatusCode};
use rustix::io::Errno;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::connections::Connection;
use super::object::Object;

/// Longest time for one range, with all attempts.
const DEADLINE: Duration = Duration::from_secs(30);
/// Longest silence of the store within an attempt.
const SILENCE: Duration = Duration::from_secs(10);
/// Pause before the second attempt; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why a range was not loaded.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    /// There is no connection, or it broke.
    #[error("the connection to the object store failed: {0}")]
    Connection(Box<dyn std::error::Error + Send + Sync>),
    /// The controller does not help.
    #[error("the controller refused: {0}")]
    Refused(Refusal),
    /// The address is not valid (any more).
    #[error("the object store refused the address")]
    Expired,
    /// There is another object now, or none.
    #[error("the object is not what it was")]
    Changed,
    /// The store failed, or asks for patience.
    #[error("the object store answered {0}")]
    Store(StatusCode),
    /// Something else came than was asked for.
    #[error("the object store sent something else than was asked for")]
    Wrong,
    /// They are not the bytes that were uploaded.
    #[error("the object store sent damaged bytes")]
    Damaged,
    /// Nothing came.
    #[error("the object store did not answer in time")]
    Silent,
}

impl FetchError {
    /// What it is to an application.
    fn errno(&self) -> Errno {
        match self {
            FetchError::Changed => Errno::STALE,
            FetchError::Refused(Refusal::NotFound) => Errno::STALE,
            _ => Errno::IO,
        }
    }

    fn is_final(&self) -> bool {
        match self {
            // It is out of something that others give back.
            FetchError::Refused(Refusal::Busy) => false,
            FetchError::Changed | FetchError::Refused(_) => true,
            _ => false,
        }
    }
}

/// Loads a range of an object, all of it.
pub(super) async fn fetch(object: &Arc<Object>, range: Range<u64>) -> Result<Vec<u8>, Errno> {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = FIRST_PAUSE;
    loop {
        let attempt = timeout_at(deadline, attempt(object, &range)).await;
        let error = match attempt.unwrap_or(Err(FetchError::Silent)) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        let last = error.is_final() || Instant::now() + pause >= deadline;
        tracing::warn!(error = &error as &dyn std::error::Error, last, "a range was not loaded");
        if last {
            return Err(error.errno());
        }
        if matches!(error, FetchError::Expired) {
            object.expire();
        }
        sleep(pause + jitter(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Up to half of `pause`, so that many who wait do not come back at once.
fn jitter(pause: Duration) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    pause * (now.subsec_nanos() % 1024) / 2048
}

async fn attempt(object: &Arc<Object>, range: &Range<u64>) -> Result<Vec<u8>, FetchError> {
    let connections = object.connections();
    // Waiting for a connection of one's own is no sign of a slow store.
    let first = connections.get(object.node()).await?;
    let again = async { ask(connections.get(object.node()).await?, object, range).await };
    let second = || connections.has_room().then_some(again);
    let (response, connection) = connections.hedge.race(ask(first, object, range), second).await?;
    let bytes = body(response.into_body(), range.end - range.start).await?;
    connection.give_back();
    if object.prove(range.start, &bytes).await? { Ok(bytes) } else { Err(FetchError::Damaged) }
}

/// Asks for a range, and has the head of the answer, which promises it.
async fn ask(
    mut connection: Connection,
    object: &Arc<Object>,
    range: &Range<u64>,
) -> Result<(Response<Incoming>, Connection), FetchError> {
    let request = request(object, range).await?;
    let response = timeout(SILENCE, connection.ask(request)).await.map_err(|_| FetchError::Silent)??;
    check(&response, range, object.size())?;
    Ok((response, connection))
}

async fn request(object: &Arc<Object>, range: &Range<u64>) -> Result<Request<Empty<Bytes>>, FetchError> {
    let (target, headers) = object.address().await?;
    let range = format!("bytes={}-{}", range.start, range.end - 1);
    let mut request = Request::get(target).header(RANGE, range);
    // With them the store gives this version of the object or none.
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Empty::new()).map_err(|error| FetchError::Connection(error.into()))
}

/// Whether the answer is about the range that was asked for.
fn check<B>(response: &Response<B>, range: &Range<u64>, size: u64) -> Result<(), FetchError> {
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let expected = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            let told = response.headers().get(CONTENT_RANGE).and_then(|told| told.to_str().ok());
            if told == Some(expected.as_str()) { Ok(()) } else { Err(FetchError::Wrong) }
        }
        // A store may send the whole object when that is what was asked for.
        StatusCode::OK if *range == (0..size) => Ok(()),
        StatusCode::OK => Err(FetchError::Wrong),
        StatusCode::FORBIDDEN => Err(FetchError::Expired),
        StatusCode::PRECONDITION_FAILED | StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE => {
            Err(FetchError::Changed)
        }
        other => Err(FetchError::Store(other)),
    }
}

/// The body, which must have exactly `length` bytes.
async fn body(mut body: Incoming, length: u64) -> Result<Vec<u8>, FetchError> {
    let length = usize::try_from(length).map_err(|_| FetchError::Wrong)?;
    let mut bytes = Vec::with_capacity(length);
    while let Some(frame) = timeout(SILENCE, body.frame()).await.map_err(|_| FetchError::Silent)? {
        let frame = frame.map_err(|error| FetchError::Connection(error.into()))?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > length {
            return Err(FetchError::Wrong);
        }
        bytes.extend_from_slice(data);
    }
    if bytes.len() == length { Ok(bytes) } else { Err(FetchError::Wrong) }
}
