//! One request over plain HTTP, for small answers: the metadata service of the machine, and the probe, which asks as
//! a VMDS asks.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Longest answer that is taken, in bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// What came back.
pub(super) struct Answer {
    /// The status.
    pub(super) status: StatusCode,
    /// The body.
    pub(super) body: Bytes,
}

/// Asks `host` (with its port) and waits at most `within`.
pub(super) async fn ask(
    host: &str,
    method: Method,
    path_and_query: &str,
    headers: &[(&str, &str)],
    within: Duration,
) -> io::Result<Answer> {
    let asked = async {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        exchange(stream, host, method, path_and_query, headers).await
    };
    tokio::time::timeout(within, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Asks over a connection that is there, whatever it is encrypted by.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    host: &str,
    method: Method,
    path_and_query: &str,
    headers: &[(&str, &str)],
) -> io::Result<Answer> {
    let mut request = Request::builder().method(method).uri(path_and_query).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request =
        request.body(Empty::<Bytes>::new()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Ends with the sender.
    let driven = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(io::Error::other)?;
    drop(sender);
    driven.abort();
    Ok(Answer { status, body: body.to_bytes() })
}
