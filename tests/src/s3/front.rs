//! What every request passes first: it is recorded, and the faults happen to it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use hyper::{Method, Request, Response, StatusCode};
use s3s::service::S3Service;
use s3s::{Body, S3Error, S3ErrorCode, StdError};
use tokio::time::{Sleep, sleep};

use super::faults::{Fault, Faults};
use super::record::{Log, Recorded};
use super::wire::Cut;

/// How often a slow body gets its next bytes.
const SLOW_TICK: Duration = Duration::from_millis(10);
/// How many of these make a second.
const TICKS_PER_SECOND: u64 = 100;

/// The outermost layer of the server.
pub(super) struct Front {
    pub(super) service: S3Service,
    pub(super) faults: Faults,
    pub(super) log: Log,
}

/// No answer: the connection ends here.
#[derive(Debug)]
pub(super) struct NoAnswer;

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection ends without an answer")
    }
}

impl std::error::Error for NoAnswer {}

impl Front {
    /// Serves one request of a connection, whose end `cut` decides.
    pub(super) async fn serve(
        &self,
        request: Request<Incoming>,
        connection: u64,
        cut: Arc<Cut>,
    ) -> Result<Response<Body>, NoAnswer> {
        let (head, body) = request.into_parts();
        let recorded = Recorded::of(&head, connection);
        let (latency, fault) = self.faults.of(&recorded);
        let number = self.log.arrived(recorded);
        if !latency.is_zero() {
            sleep(latency).await;
        }
        let request = Request::from_parts(head, body);
        let answer = match fault {
            None => self.pass(request).await?,
            Some(fault) => self.fail(fault, request, cut).await?,
        };
        self.log.answered(number, answer.status().as_u16());
        Ok(answer)
    }

    /// Has the request served as it should be.
    async fn pass(&self, request: Request<Incoming>) -> Result<Response<Body>, NoAnswer> {
        self.service.call(request.map(Body::from)).await.map_err(|_| NoAnswer)
    }

    async fn fail(
        &self,
        fault: Fault,
        request: Request<Incoming>,
        cut: Arc<Cut>,
    ) -> Result<Response<Body>, NoAnswer> {
        match fault {
            Fault::Latency(_) => self.pass(request).await,
            Fault::ResetBefore => {
                cut.with_reset();
                Err(NoAnswer)
            }
            Fault::LoseAnswer => {
                self.pass(request).await?;
                cut.with_reset();
                Err(NoAnswer)
            }
            Fault::ResetInBody { after } if request.method() == Method::PUT => {
                read(request.into_body(), after).await;
                cut.with_reset();
                Err(NoAnswer)
            }
            Fault::ResetInBody { after } => {
                cut.with_reset();
                Ok(self.pass(request).await?.map(|body| CutBody::of(body, after, cut)))
            }
            Fault::TruncateBody { after } => {
                Ok(self.pass(request).await?.map(|body| CutBody::of(body, after, cut)))
            }
            Fault::FlipByte { at } => Ok(self.pass(request).await?.map(|body| FlippedBody::of(body, at))),
            Fault::SlowBody { bytes_per_second } => {
                Ok(self.pass(request).await?.map(|body| SlowBody::of(body, bytes_per_second)))
            }
            Fault::Stall => std::future::pending().await,
            Fault::Answer { status, code } => {
                // A client still writing could lose an early answer to the reset that follows it.
                read(request.into_body(), u64::MAX).await;
                error(status, code)
            }
        }
    }
}

/// Reads a body until so many bytes were read, or it ends or breaks.
async fn read(mut body: Incoming, bytes: u64) {
    let mut read = 0;
    while read < bytes
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
}

/// An error as S3 words it.
fn error(status: u16, code: &str) -> Result<Response<Body>, NoAnswer> {
    let code = S3ErrorCode::from_bytes(code.as_bytes()).ok_or(NoAnswer)?;
    let mut error = S3Error::with_message(code, "injected by the test");
    error.set_status_code(StatusCode::from_u16(status).map_err(|_| NoAnswer)?);
    error.to_http_response().map_err(|_| NoAnswer)
}

type Polled = Poll<Option<Result<Frame<Bytes>, StdError>>>;

/// A body that promises its full length, and cuts the connection before it is there.
struct CutBody {
    inner: Body,
    left: u64,
    cut: Arc<Cut>,
}

impl CutBody {
    fn of(inner: Body, after: u64, cut: Arc<Cut>) -> Body {
        let length = inner.size_hint().lower();
        Body::http_body_unsync(Self { left: after.min(length.saturating_sub(1)), inner, cut })
    }
}

impl hyper::body::Body for CutBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        if self.left == 0 {
            // HTTP flushes what it has while it waits for more, and the connection ends there.
            self.cut.after_flush();
            return Poll::Pending;
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let left = self.left;
        let cut = frame.map(|frame| frame.map(|frame| frame.map_data(|data| first(data, left))));
        if let Some(Ok(frame)) = &cut {
            self.left -= frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(cut)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// At most the first `most` bytes.
fn first(mut data: Bytes, most: u64) -> Bytes {
    data.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    data
}

/// A body with one wrong bit.
struct FlippedBody {
    inner: Body,
    /// How many bytes are before the wrong one; none when it has passed.
    before: Option<u64>,
}

impl FlippedBody {
    fn of(inner: Body, at: u64) -> Body {
        let last = inner.size_hint().lower().checked_sub(1);
        Body::http_body_unsync(Self { before: last.map(|last| at.min(last)), inner })
    }

    fn flip(&mut self, data: Bytes) -> Bytes {
        let length = data.len() as u64;
        match self.before {
            Some(before) if before < length => {
                self.before = None;
                let mut data = data.to_vec();
                data[before as usize] ^= 1;
                data.into()
            }
            before => {
                self.before = before.map(|before| before - length);
                data
            }
        }
    }
}

impl hyper::body::Body for FlippedBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|data| self.flip(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A body that comes a few bytes at a time.
struct SlowBody {
    inner: Body,
    /// What the inner body gave and is not yet passed on.
    waiting: Bytes,
    bytes_per_tick: u64,
    tick: Pin<Box<Sleep>>,
}

impl SlowBody {
    fn of(inner: Body, bytes_per_second: u64) -> Body {
        let bytes_per_tick = (bytes_per_second / TICKS_PER_SECOND).max(1);
        let tick = Box::pin(sleep(SLOW_TICK));
        Body::http_body_unsync(Self { inner, waiting: Bytes::new(), bytes_per_tick, tick })
    }
}

impl hyper::body::Body for SlowBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        if self.waiting.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => self.waiting = frame.into_data().unwrap_or_default(),
                end => return Poll::Ready(end),
            }
        }
        ready!(self.tick.as_mut().poll(cx));
        self.tick = Box::pin(sleep(SLOW_TICK));
        let most = self.bytes_per_tick.min(self.waiting.len() as u64) as usize;
        let next = self.waiting.split_to(most);
        Poll::Ready(Some(Ok(Frame::data(next))))
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.waiting.len() as u64 + self.inner.size_hint().lower())
    }
}
