//! Every fault, as a client meets it.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::presigning::PresignedRequest;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

use super::{BUCKET, DEADLINE, a_minute, code, send, server_and_client};
use crate::s3::{Fault, RequestKind, S3Server};

/// Longer than what socket buffers hold.
const LONG: usize = 16 << 20;

/// A URL that gets `k`.
async fn get(client: &Client) -> PresignedRequest {
    client.get_object().bucket(BUCKET).key("k").presigned(a_minute()).await.unwrap()
}

/// A URL that puts `k`.
async fn put(client: &Client) -> PresignedRequest {
    client.put_object().bucket(BUCKET).key("k").presigned(a_minute()).await.unwrap()
}

/// A server where `k` is this long, a client, and the bytes of `k`.
fn with_object(length: usize) -> (S3Server, Client, Vec<u8>) {
    let (server, client) = server_and_client();
    let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    server.bucket(BUCKET).put("k", bytes.clone());
    (server, client, bytes)
}

#[tokio::test]
async fn latency_comes_before_the_answer() {
    let (server, client, bytes) = with_object(10);
    let url = get(&client).await;
    server.faults().add(Fault::Latency(Duration::from_millis(60)).once());
    let slow = server.faults().add(Fault::Latency(Duration::from_millis(60)).once());
    let begun = Instant::now();
    assert_eq!(send(&url, b"").await.unwrap().body, bytes);
    assert!(begun.elapsed() >= Duration::from_millis(120));
    assert_eq!(server.faults().hits(slow), 1);
}

#[tokio::test]
async fn a_reset_before_the_request_leaves_nothing_done() {
    let (server, client) = server_and_client();
    let url = put(&client).await;
    server.faults().add(Fault::ResetBefore.once());
    send(&url, b"bytes").await.unwrap_err();
    assert!(server.bucket(BUCKET).keys().is_empty());
    assert_eq!(server.requests()[0].status, None);
    // Without a body that is still on its way the client sees what it is: a reset, and not an orderly end.
    server.faults().add(Fault::ResetBefore.once());
    let error = send(&get(&client).await, b"").await.unwrap_err();
    let cause =
        error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).expect("an error of the socket");
    assert_eq!(cause.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(send(&url, b"bytes").await.unwrap().status, 200);
}

#[tokio::test]
async fn of_a_lost_answer_the_request_is_done() {
    let (server, client) = server_and_client();
    let url = put(&client).await;
    server.faults().add(Fault::LoseAnswer.once());
    send(&url, b"bytes").await.unwrap_err();
    assert_eq!(server.bucket(BUCKET).get("k").unwrap(), "bytes");
}

#[tokio::test]
async fn the_answer_of_a_completion_can_be_lost_or_be_an_error_in_a_200() {
    let (server, client) = server_and_client();
    let begun = client.create_multipart_upload().bucket(BUCKET).key("k").send().await.unwrap();
    let id = begun.upload_id.unwrap();
    let part = client.upload_part().bucket(BUCKET).key("k").upload_id(&id).part_number(1);
    let etag = part.body(b"bytes".to_vec().into()).send().await.unwrap().e_tag.unwrap();
    let parts = CompletedPart::builder().part_number(1).e_tag(etag).build();
    let parts = CompletedMultipartUpload::builder().parts(parts).build();
    let complete = client.complete_multipart_upload().bucket(BUCKET).key("k").upload_id(&id);
    let complete = complete.multipart_upload(parts);

    let kind = RequestKind::CompleteMultipartUpload;
    server.faults().add(Fault::ERROR_IN_OK.once().on(kind));
    assert_eq!(code(complete.clone().send().await), "InternalError");
    assert_eq!(server.requests_of(kind)[0].status, Some(200));
    assert!(server.bucket(BUCKET).get("k").is_none());
    server.faults().add(Fault::LoseAnswer.once().on(kind));
    complete.clone().send().await.unwrap_err();
    assert_eq!(server.bucket(BUCKET).get("k").unwrap(), "bytes");
    assert_eq!(code(complete.send().await), "NoSuchUpload");
}

#[tokio::test]
async fn an_answer_ends_short_at_the_very_byte() {
    let (server, client, bytes) = with_object(LONG);
    let url = get(&client).await;
    for after in [0, 1, 1000, LONG - 1] {
        server.faults().add(Fault::TruncateBody { after: after as u64 }.once());
        let answer = send(&url, b"").await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["content-length"], LONG.to_string());
        assert!(!answer.whole);
        assert_eq!(answer.body.len(), after);
        assert_eq!(answer.body, bytes[..after]);
    }
    server.faults().add(Fault::TruncateBody { after: u64::MAX }.once());
    assert_eq!(send(&url, b"").await.unwrap().body.len(), LONG - 1);
    assert_eq!(send(&url, b"").await.unwrap().body, bytes);
}

#[tokio::test]
async fn a_connection_is_reset_in_the_body_of_an_answer() {
    let (server, client, bytes) = with_object(LONG);
    let url = get(&client).await;
    server.faults().add(Fault::ResetInBody { after: LONG as u64 / 2 }.once());
    // What was on its way when the reset came may be lost, the head too.
    if let Ok(answer) = send(&url, b"").await {
        assert!(!answer.whole);
        assert!(answer.body.len() <= LONG / 2);
        assert_eq!(answer.body, bytes[..answer.body.len()]);
    }
    assert!(send(&url, b"").await.unwrap().whole);
}

#[tokio::test]
async fn a_connection_is_reset_in_the_body_of_a_put() {
    let (server, client) = server_and_client();
    let url = put(&client).await;
    let fault = server.faults().add(Fault::ResetInBody { after: 1 << 20 }.once());
    send(&url, &vec![1; LONG]).await.unwrap_err();
    assert_eq!(server.faults().hits(fault), 1);
    assert!(server.bucket(BUCKET).keys().is_empty());
}

#[tokio::test]
async fn one_bit_of_an_answer_is_wrong() {
    let (server, client, bytes) = with_object(1000);
    let url = get(&client).await;
    for (at, wrong) in [(0, 0), (500, 500), (u64::MAX, 999)] {
        server.faults().add(Fault::FlipByte { at }.once());
        let answer = send(&url, b"").await.unwrap();
        let differing: Vec<usize> = (0..1000).filter(|at| answer.body[*at] != bytes[*at]).collect();
        assert_eq!((answer.body.len(), differing), (1000, vec![wrong]));
    }
}

#[tokio::test]
async fn a_slow_body_comes_whole() {
    let (server, client, bytes) = with_object(1000);
    let url = get(&client).await;
    server.faults().add(Fault::SlowBody { bytes_per_second: 10_000 }.once());
    let begun = Instant::now();
    assert_eq!(send(&url, b"").await.unwrap().body, bytes);
    assert!(begun.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn errors_are_answered_as_s3_words_them() {
    let (server, client) = server_and_client();
    let url = put(&client).await;
    let long = vec![1; LONG];
    for (fault, status, code) in [
        (Fault::SLOW_DOWN, 503, "<Code>SlowDown</Code>"),
        (Fault::INTERNAL_ERROR, 500, "<Code>InternalError</Code>"),
        (Fault::EXPIRED, 403, "<Code>AccessDenied</Code>"),
        (Fault::Answer { status: 400, code: "RequestTimeout" }, 400, "<Code>RequestTimeout</Code>"),
    ] {
        server.faults().add(fault.once());
        let answer = send(&url, &long).await.unwrap();
        assert_eq!(answer.status, status);
        assert!(answer.text().contains(code), "{}", answer.text());
        assert_eq!(server.requests().last().unwrap().status, Some(status));
    }
    assert!(server.bucket(BUCKET).keys().is_empty());
    server.faults().add(Fault::SLOW_DOWN.once());
    let get = client.get_object().bucket(BUCKET).key("k");
    assert_eq!(super::code(get.send().await), "SlowDown");
}

#[tokio::test]
async fn a_stalled_request_is_never_answered_and_does_not_keep_the_server() {
    let (server, client, _) = with_object(10);
    let url = get(&client).await;
    let stall = server.faults().add(Fault::Stall.once());
    let stalled = tokio::spawn(async move { send(&url, b"").await });
    let begun = Instant::now();
    while server.faults().hits(stall) == 0 {
        assert!(begun.elapsed() < DEADLINE);
        tokio::task::yield_now().await;
    }
    let others = get(&client).await;
    assert_eq!(send(&others, b"").await.unwrap().status, 200);
    assert!(!stalled.is_finished());
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
    stalled.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_rule_counts_the_requests_it_means() {
    let (server, client, _) = with_object(10);
    server.bucket(BUCKET).put("other", "bytes");
    let url = get(&client).await;
    let others = client.get_object().bucket(BUCKET).key("other").presigned(a_minute()).await.unwrap();
    let rule = Fault::SLOW_DOWN.times(2).on(RequestKind::GetObject).method("GET").key("k").after(1);
    let id = server.faults().add(rule);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(send(&url, b"").await.unwrap().status);
        assert_eq!(send(&others, b"").await.unwrap().status, 200);
        client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    }
    assert_eq!(seen, [200, 503, 503, 200]);
    assert_eq!(server.faults().hits(id), 2);

    let always = server.faults().add(Fault::SLOW_DOWN.always());
    server.faults().add(Fault::INTERNAL_ERROR.once());
    assert_eq!(send(&url, b"").await.unwrap().status, 503);
    server.faults().remove(always);
    // The turn of the second rule had not passed while the first one was there.
    assert_eq!(send(&url, b"").await.unwrap().status, 500);
    server.faults().add(Fault::SLOW_DOWN.always());
    server.faults().clear();
    assert_eq!(send(&url, b"").await.unwrap().status, 200);
}
