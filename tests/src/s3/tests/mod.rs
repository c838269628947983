//! The server against the AWS SDK, and against bare HTTP where the SDK would repair or hide what is looked for.

mod faults;
mod multipart;
mod objects;
mod signing;

use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::S3Server;

/// The bucket of most tests.
const BUCKET: &str = "data";
/// After this long a request that has no end is a failure.
const DEADLINE: Duration = Duration::from_secs(30);

/// A client of the SDK that never retries.
fn client(server: &S3Server, access_key: &str, secret_key: &str) -> Client {
    let config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(server.region()))
        .endpoint_url(server.endpoint())
        .force_path_style(true)
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"))
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

/// A server with one bucket, and a client that may do everything.
fn server_and_client() -> (S3Server, Client) {
    let server = S3Server::with_bucket(BUCKET);
    let client = client(&server, "root", "root-secret");
    (server, client)
}

/// The code of the error S3 answered.
#[track_caller]
fn code<T: std::fmt::Debug, E, R>(result: Result<T, SdkError<E, R>>) -> String
where
    SdkError<E, R>: ProvideErrorMetadata,
{
    result.expect_err("an error").code().unwrap_or("none").to_owned()
}

/// For a minute from now.
fn a_minute() -> PresigningConfig {
    PresigningConfig::expires_in(Duration::from_secs(60)).unwrap()
}

/// For a minute an hour ago.
fn long_ago() -> PresigningConfig {
    let start = SystemTime::now() - Duration::from_secs(3600);
    PresigningConfig::builder().start_time(start).expires_in(Duration::from_secs(60)).build().unwrap()
}

/// What bare HTTP got for an answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    /// As much of the body as came.
    body: Vec<u8>,
    /// Whether that is all of it.
    whole: bool,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends what was presigned, as it was presigned.
async fn send(request: &PresignedRequest, body: &[u8]) -> Result<Answer, hyper::Error> {
    let headers: Vec<_> = request.headers().collect();
    send_as(request.method(), request.uri(), &headers, body).await
}

/// Sends a request on a connection of its own, and gives what came back: an error if that was not even a head.
async fn send_as(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, hyper::Error> {
    let ended = tokio::time::timeout(DEADLINE, exchange(method, url, headers, body)).await;
    ended.expect("an answer or an end in time")
}

async fn exchange(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, hyper::Error> {
    let (authority, _) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let socket = TcpStream::connect(authority).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let connection = tokio::spawn(connection);
    let path = &url["http://".len() + authority.len()..];
    let mut request = Request::builder().method(method).uri(path);
    if headers.iter().all(|(name, _)| *name != "host") {
        request = request.header("host", authority);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
    let (head, mut incoming) = sender.send_request(request).await?.into_parts();
    let (mut body, mut whole) = (Vec::new(), true);
    while let Some(frame) = incoming.frame().await {
        match frame.map(|frame| frame.into_data()) {
            Ok(data) => body.extend_from_slice(&data.unwrap_or_default()),
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    connection.abort();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, whole })
}
