//! Uploads and downloads on a bad day.

use std::time::Duration;

use controller::pool::s3::S3Error;
use tests::s3::{Fault, RequestKind};

use crate::{Bench, MIB, bytes, content, empty, file_of};

const REFUSED: Fault = Fault::Answer { status: 403, code: "AccessDenied" };

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_is_neither_a_failure_nor_a_second_object() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    for (kind, size) in [(RequestKind::PutObject, 100), (RequestKind::CompleteMultipartUpload, 17 * MIB)] {
        let lost = bench.server.faults().add(Fault::LoseAnswer.once().on(kind));
        let key = format!("1/a/{size}");
        let stored = pool.upload(&key, file_of(size), size).await.unwrap().stored;
        assert_eq!(bench.server.faults().hits(lost), 1);
        assert_eq!(pool.head(&key).await.unwrap(), Some(stored));
        assert!(bench.server.bucket("data").get(&format!("team/{key}")).unwrap() == bytes(size));
    }
    assert_eq!(bench.server.bucket("data").keys().len(), 2);
    assert!(bench.server.bucket("data").uploads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_an_answer_that_began_well_is_an_error() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    let half = bench.server.faults().add(Fault::ERROR_IN_OK.once().on(RequestKind::CompleteMultipartUpload));
    let stored = pool.upload("1/b/1", file_of(17 * MIB), 17 * MIB).await.unwrap().stored;
    assert_eq!((bench.server.faults().hits(half), stored.size), (1, 17 * MIB));
    assert!(bench.server.bucket("data").get("team/1/b/1").unwrap() == bytes(17 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_is_sent_from_its_beginning() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    let faults = bench.server.faults();
    let cut = faults.add(Fault::ResetInBody { after: 3 << 20 }.times(2).on(RequestKind::PutObject));
    let slow = faults.add(Fault::SLOW_DOWN.once().on(RequestKind::UploadPart));
    pool.upload("1/c/1", file_of(5 * MIB), 5 * MIB).await.unwrap();
    pool.upload("1/c/2", file_of(20 * MIB), 20 * MIB).await.unwrap();
    assert_eq!((faults.hits(cut), faults.hits(slow)), (2, 1));
    let bucket = bench.server.bucket("data");
    assert!(bucket.get("team/1/c/1").unwrap() == bytes(5 * MIB));
    assert!(bucket.get("team/1/c/2").unwrap() == bytes(20 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fails_gives_its_parts_back() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    bench.server.faults().add(REFUSED.always().on(RequestKind::UploadPart).after(2));
    let failed = pool.upload("1/d/1", file_of(40 * MIB), 40 * MIB).await;
    assert!(matches!(failed, Err(S3Error::Denied(_))), "{failed:?}");
    let bucket = bench.server.bucket("data");
    while !bucket.uploads().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(bucket.keys().is_empty());
    assert_eq!(bench.server.count(RequestKind::CompleteMultipartUpload), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_given_up_gives_its_parts_back() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    bench.server.faults().add(Fault::Stall.always().on(RequestKind::UploadPart));
    let upload = pool.upload("1/e/1", file_of(17 * MIB), 17 * MIB);
    let bucket = bench.server.bucket("data");
    let begun = async {
        while bench.server.count(RequestKind::UploadPart) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        ended = upload => panic!("{ended:?}"),
        () = begun => assert_eq!(bucket.uploads().len(), 1),
    }
    while !bucket.uploads().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_became_shorter_is_not_uploaded() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    assert!(pool.upload("1/f/1", file_of(10), 20).await.is_err());
    assert_eq!(pool.head("1/f/1").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_where_it_broke_off() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    let size = 20 * MIB + 5;
    let stored = pool.upload("1/g/1", file_of(size), size).await.unwrap().stored;
    let faults = bench.server.faults();
    let broken = [
        faults.add(Fault::TruncateBody { after: 3 << 20 }.once().on(RequestKind::GetObject)),
        faults.add(Fault::ResetInBody { after: 5 << 20 }.once().on(RequestKind::GetObject).after(1)),
        faults.add(Fault::INTERNAL_ERROR.once().on(RequestKind::GetObject).after(2)),
    ];
    let back = empty();
    pool.download("1/g/1", &stored.etag, size, 0..size, back.clone()).await.unwrap();
    assert!(content(&back) == bytes(size));
    assert!(broken.map(|fault| faults.hits(fault)).iter().all(|&hits| hits == 1));
    let again = bench.server.requests_of(RequestKind::GetObject);
    let resumed =
        again.iter().filter_map(tests::s3::Recorded::range).any(|range| range.start() % (8 * MIB) != 0);
    assert!(resumed, "what was there already is not fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_always_breaks_off_is_given_up() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    let stored = pool.upload("1/h/1", file_of(1000), 1000).await.unwrap().stored;
    bench.server.faults().add(Fault::TruncateBody { after: 0 }.always().on(RequestKind::GetObject));
    let given_up = pool.download("1/h/1", &stored.etag, 1000, 0..1000, empty()).await;
    assert!(matches!(&given_up, Err(error) if error.may_pass()), "{given_up:?}");
}
