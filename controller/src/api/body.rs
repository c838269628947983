//! Bodies of requests and of streamed answers: JSON in, bounded in size and time; lines out, as they come.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use hyper::body::Frame;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{ApiError, ErrorKind};

/// Largest body of a request, in bytes.
const BODY_MAX: usize = 1 << 20;
/// Longest wait for the body of a request.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// A body of JSON, whatever type of content the client claims.
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let bad = |message: String| ApiError::new(ErrorKind::BadRequest, message);
        let body = axum::body::to_bytes(request.into_body(), BODY_MAX);
        let bytes = match tokio::time::timeout(BODY_WITHIN, body).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                return Err(bad(format!(
                    "the body cannot be read, or is larger than {BODY_MAX} bytes: {error}"
                )));
            }
            Err(_elapsed) => {
                return Err(bad(format!("the body did not come within {}s", BODY_WITHIN.as_secs())));
            }
        };
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            bad(format!("the body is not understood: {}: {}", error.path(), error.inner()))
        })?;
        json.end().map_err(|error| bad(format!("the body is not understood: {error}")))?;
        Ok(Self(value))
    }
}

/// A body that consists of what is sent to it, piece by piece, and ends when the sender is dropped.
pub(super) struct Lines(pub(super) mpsc::Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl From<Lines> for Body {
    fn from(lines: Lines) -> Self {
        Body::new(lines)
    }
}
