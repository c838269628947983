//! Signed addresses as a VMDS uses them: on a connection that was made for it, and with nothing else.

use std::time::Duration;

use controller::pool::s3::{Relays, S3Pool, SignedGet};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::{Bench, bytes, file_of};

const MINUTE: Duration = Duration::from_secs(60);

/// Reads on a connection that is made for it.
pub(crate) async fn read(pool: &S3Pool, signed: &SignedGet, range: Option<&str>) -> (u16, Vec<u8>) {
    let socket = pool.connect(&Relays::default()).await.unwrap();
    read_on(TcpStream::from_std(socket.into()).unwrap(), pool, signed, range).await
}

/// Reads on a connection that is there.
pub(crate) async fn read_on(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    pool: &S3Pool,
    signed: &SignedGet,
    range: Option<&str>,
) -> (u16, Vec<u8>) {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driven = tokio::spawn(connection);
    let mut request = Request::get(&signed.path_and_query).header("host", &pool.endpoint().host);
    for (name, value) in &signed.headers {
        request = request.header(name, value);
    }
    if let Some(range) = range {
        request = request.header("range", range);
    }
    let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes().to_vec();
    driven.abort();
    (status, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_reads_one_object_and_any_range_of_it() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    pool.upload("1/a/1", file_of(1000), 1000).await.unwrap();
    pool.upload("1/a/2", file_of(10), 10).await.unwrap();
    let signed = pool.sign_get("1/a/1", None, MINUTE).await.unwrap();
    assert_eq!(read(&pool, &signed, None).await, (200, bytes(1000)));
    assert_eq!(read(&pool, &signed, Some("bytes=10-19")).await, (206, bytes(1000)[10..20].to_vec()));
    let mut other = signed.clone();
    other.path_and_query = other.path_and_query.replace("/1/a/1?", "/1/a/2?");
    assert_eq!(read(&pool, &other, None).await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_and_an_etag_that_are_signed_are_limits() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    let stored = pool.upload("1/b/1", file_of(1000), 1000).await.unwrap().stored;
    let signed = pool.sign_get_matching("1/b/1", &stored.etag, Some(5..8), MINUTE).await.unwrap();
    assert_eq!(read(&pool, &signed, None).await, (206, bytes(1000)[5..8].to_vec()));
    let mut wider = signed.clone();
    wider.headers[0].1 = "bytes=0-999".to_owned();
    assert_eq!(read(&pool, &wider, None).await.0, 403);
    bench.server.bucket("data").put("team/1/b/1", vec![7; 1000]);
    assert_eq!(read(&pool, &signed, None).await.0, 412);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_ends() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    pool.upload("1/c/1", file_of(10), 10).await.unwrap();
    let signed = pool.sign_get("1/c/1", None, Duration::from_secs(1)).await.unwrap();
    while std::time::SystemTime::now() <= signed.expires + Duration::from_secs(1) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(read(&pool, &signed, None).await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_a_user_who_is_gone_are_refused() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    pool.upload("1/d/1", file_of(10), 10).await.unwrap();
    let signed = pool.sign_get("1/d/1", None, MINUTE).await.unwrap();
    bench.server.remove_user(crate::ID);
    assert_eq!(read(&pool, &signed, None).await.0, 403);
}
