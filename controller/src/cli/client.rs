//! The client of the API: one connection per request, over the controller's Unix socket.

use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use super::CliError;
use crate::api::{ErrorBody, OUTCOME_HEADER, WatchLine};
use crate::config::socket_in;
use crate::resource::{Kind, Manifest, Object};

/// Largest answer that is read, in bytes.
const ANSWER_MAX: usize = 256 << 20;
/// Longest line of a watch, in bytes.
const LINE_MAX: usize = 8 << 20;
/// Longest wait for an answer, beyond what the request itself asks to wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A controller to talk to.
#[derive(Clone, Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(run_dir: &Path) -> Self {
        Self { socket: socket_in(run_dir) }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        Ok(self.ask(Method::GET, path, None, ANSWER_WITHIN).await?.1)
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        wait: Duration,
    ) -> Result<T, CliError> {
        Ok(self.ask(Method::POST, path, Some(body.to_string()), wait + ANSWER_WITHIN).await?.1)
    }

    /// Wishes for a resource; answers `created`, `configured` or `unchanged`, and the resource.
    pub(super) async fn put(
        &self,
        kind: Kind,
        name: &str,
        manifest: &Manifest,
    ) -> Result<(String, Object), CliError> {
        let body = serde_json::to_string(manifest).map_err(|error| CliError::new(error.to_string()))?;
        self.ask(Method::PUT, &resource_path(kind, name), Some(body), ANSWER_WITHIN).await
    }

    pub(super) async fn delete(&self, kind: Kind, name: &str, query: &str) -> Result<Object, CliError> {
        let path = format!("{}{query}", resource_path(kind, name));
        Ok(self.ask(Method::DELETE, &path, None, ANSWER_WITHIN).await?.1)
    }

    /// Opens a stream of changes.
    pub(super) async fn watch(&self, path: &str) -> Result<Changes, CliError> {
        let response = self.within(ANSWER_WITHIN, self.send(Method::GET, path, None)).await?;
        if response.status() == StatusCode::OK {
            return Ok(Changes { body: response.into_body(), read: Vec::new() });
        }
        Err(refusal(response).await)
    }

    /// Asks for work that takes long and is told line by line.
    pub(super) async fn work(&self, path: &str, body: &Value) -> Result<Changes, CliError> {
        let response = self.send(Method::POST, path, Some(body.to_string()));
        let response = self.within(ANSWER_WITHIN, response).await?;
        if response.status() == StatusCode::OK {
            return Ok(Changes { body: response.into_body(), read: Vec::new() });
        }
        Err(refusal(response).await)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        patience: Duration,
    ) -> Result<(String, T), CliError> {
        let answer = async {
            let response = self.send(method, path, body).await?;
            if !response.status().is_success() {
                return Err(refusal(response).await);
            }
            let outcome = response.headers().get(OUTCOME_HEADER).and_then(|v| v.to_str().ok());
            let outcome = outcome.unwrap_or_default().to_owned();
            let bytes = read(response).await?;
            let value = serde_json::from_slice(&bytes).map_err(|error| not_understood(&error))?;
            Ok((outcome, value))
        };
        self.within(patience, answer).await
    }

    async fn within<T>(
        &self,
        patience: Duration,
        answer: impl Future<Output = Result<T, CliError>>,
    ) -> Result<T, CliError> {
        tokio::time::timeout(patience, answer).await.unwrap_or_else(|_elapsed| {
            Err(CliError::new(format!("the controller did not answer within {}s", patience.as_secs()))
                .hint("look at its log"))
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Response<Incoming>, CliError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let lost = |error: hyper::Error| {
            CliError::new(format!("the connection to the controller was lost: {error}"))
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // Ends with the connection; what goes wrong there is told to the request.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "vmds")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| CliError::new(format!("this cannot be asked: {error}")))?;
        sender.send_request(request).await.map_err(lost)
    }

    fn unreachable(&self, error: &std::io::Error) -> CliError {
        let socket = self.socket.display();
        match error.kind() {
            IoKind::NotFound | IoKind::ConnectionRefused => {
                let run_dir = self.socket.parent().unwrap_or(Path::new("/")).display();
                CliError::new(format!("the controller is not running: nobody answers at {socket}"))
                    .hint(format!("start it with: vmds-controller serve --run-dir {run_dir}"))
            }
            _ => CliError::new(format!("the controller cannot be reached at {socket}: {error}")),
        }
    }
}

async fn read(response: Response<Incoming>) -> Result<Bytes, CliError> {
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    Ok(body
        .map_err(|error| CliError::new(format!("the answer of the controller broke off: {error}")))?
        .to_bytes())
}

async fn refusal(response: Response<Incoming>) -> CliError {
    let status = response.status();
    match read(response).await.map(|bytes| serde_json::from_slice::<ErrorBody>(&bytes)) {
        Ok(Ok(body)) => {
            CliError { message: body.error.message, hint: body.error.hint, kind: Some(body.error.kind) }
        }
        _ => CliError::new(format!("the controller answered {status}")),
    }
}

fn not_understood(error: &serde_json::Error) -> CliError {
    CliError::new(format!("the answer of the controller is not understood: {error}"))
        .hint("vmdsctl and vmds-controller should be of the same version")
}

/// A stream of lines.
pub(super) struct Changes {
    body: Incoming,
    read: Vec<u8>,
}

impl Changes {
    /// The next line; `None`: the controller ended the stream.
    pub(super) async fn next(&mut self) -> Result<Option<(String, WatchLine)>, CliError> {
        self.next_line().await
    }

    /// The same, of any kind of line.
    pub(super) async fn next_line<T: DeserializeOwned>(&mut self) -> Result<Option<(String, T)>, CliError> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let parsed = serde_json::from_slice(&line).map_err(|error| not_understood(&error))?;
                return Ok(Some((String::from_utf8_lossy(&line[..end]).into_owned(), parsed)));
            }
            if self.read.len() > LINE_MAX {
                return Err(CliError::new(format!(
                    "the controller sent a line of more than {LINE_MAX} bytes"
                )));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => self.read.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
                Some(Err(error)) => {
                    return Err(CliError::new(format!("the connection to the controller was lost: {error}")));
                }
            }
        }
    }
}

/// `/v1/tenants/alpha`
pub(super) fn resource_path(kind: Kind, name: &str) -> String {
    format!("/v1/{}/{}", kind.info().plural, encoded(name))
}

/// A text as part of a URL.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_url() {
        assert_eq!(resource_path(Kind::Tenant, "a/../b?x=1#y"), "/v1/tenants/a%2F..%2Fb%3Fx%3D1%23y");
        assert_eq!(encoded("/daten/ü"), "%2Fdaten%2F%C3%BC");
    }
}
