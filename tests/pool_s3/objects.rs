//! Uploads, downloads, lists, deletions when all goes well.

use std::time::Duration;

use controller::pool::s3::S3Error;
use tests::s3::{Fault, RequestKind};

use crate::{Bench, MIB, bytes, content, empty, file_of};

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_sizes_come_back_as_they_went() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    for size in [0, 1, 5 * MIB, 16 * MIB, 16 * MIB + 1, 40 * MIB + 12_345] {
        let (key, back) = (format!("1/a/{size:x}"), empty());
        let stored = pool.upload(&key, file_of(size), size).await.unwrap().stored;
        assert_eq!(stored.size, size);
        assert_eq!(pool.head(&key).await.unwrap(), Some(stored.clone()));
        assert!(bench.server.bucket("data").get(&format!("team/{key}")).unwrap() == bytes(size), "{size}");
        pool.download(&key, &stored.etag, size, 0..size, back.clone()).await.unwrap();
        assert!(content(&back) == bytes(size), "{size}");
    }
    assert_eq!(bench.server.count(RequestKind::PutObject), 4, "small files are one request");
    assert_eq!(bench.server.count(RequestKind::UploadPart), 3 + 6);
    assert!(bench.server.bucket("data").uploads().is_empty());
    assert_eq!(pool.head("1/a/none").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_come_with_a_cheap_checksum_that_does_not_trail() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    pool.upload("1/b/1", file_of(100), 100).await.unwrap();
    pool.upload("1/b/2", file_of(17 * MIB), 17 * MIB).await.unwrap();
    for kind in [RequestKind::PutObject, RequestKind::UploadPart] {
        for sent in bench.server.requests_of(kind) {
            assert_eq!(sent.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"), "{kind:?}");
            assert!(sent.header("x-amz-checksum-crc32").is_some(), "{kind:?}");
            assert_eq!((sent.header("x-amz-trailer"), sent.header("transfer-encoding")), (None, None));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_never_replaced() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    for size in [3, 17 * MIB] {
        let key = format!("1/c/{size}");
        let stored = pool.upload(&key, file_of(size), size).await.unwrap().stored;
        let again = pool.upload(&key, file_of(size), size).await;
        assert!(matches!(again, Err(S3Error::Exists)), "{again:?}");
        assert_eq!(pool.head(&key).await.unwrap(), Some(stored));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_changed_is_not_read() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    let stored = pool.upload("1/d/1", file_of(9 * MIB), 9 * MIB).await.unwrap().stored;
    let longer = pool.download("1/d/1", &stored.etag, 9 * MIB + 1, 0..9 * MIB + 1, empty()).await;
    assert!(matches!(longer, Err(S3Error::Changed)), "{longer:?}");
    bench.server.bucket("data").put("team/1/d/1", vec![7; 9 << 20]);
    let other = pool.download("1/d/1", &stored.etag, 9 * MIB, 0..9 * MIB, empty()).await;
    assert!(matches!(other, Err(S3Error::Changed)), "{other:?}");
    bench.server.bucket("data").remove("team/1/d/1");
    let gone = pool.download("1/d/1", &stored.etag, 9 * MIB, 0..9 * MIB, empty()).await;
    assert!(matches!(gone, Err(S3Error::NotFound)), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_and_stay_below_the_prefix() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    let bucket = bench.server.bucket("data");
    for number in 0..1003 {
        bucket.put(&format!("team/2/{number:04}"), "x");
    }
    bucket.put("team2/1", "not ours");
    let first = pool.list(None).await.unwrap();
    assert_eq!((first.objects.len(), first.objects[0].key.as_str()), (1000, "2/0000"));
    assert_eq!(first.objects[0].stored.size, 1);
    let second = pool.list(first.next).await.unwrap();
    let rest: Vec<_> = second.objects.iter().map(|listed| listed.key.as_str()).collect();
    assert_eq!((rest, second.next), (vec!["2/1000", "2/1001", "2/1002"], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_or_was_not_there_is_gone() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    let bucket = bench.server.bucket("data");
    for number in 0..1003 {
        bucket.put(&format!("team/2/{number:04}"), "x");
    }
    let mut keys: Vec<_> = (1..1002).map(|number| format!("2/{number:04}")).collect();
    keys.push("2/missing".to_owned());
    assert_eq!(pool.delete(&keys).await.unwrap(), keys);
    assert_eq!(bucket.keys(), ["team/2/0000", "team/2/1002"]);
    assert_eq!(bench.server.count(RequestKind::DeleteObjects), 2);
    assert!(bench.server.requests().iter().all(|sent| sent.header("content-md5").is_some()));
    assert_eq!(pool.delete(&[]).await.unwrap(), Vec::<String>::new());

    for (status, code) in [(501, "NotImplemented"), (403, "AccessDenied")] {
        bucket.put("team/2/0000", "x");
        let refused = Fault::Answer { status, code };
        bench.server.faults().add(refused.always().on(RequestKind::DeleteObjects));
        let last = ["2/0000".to_owned(), "2/missing".to_owned()];
        assert_eq!(pool.delete(&last).await.unwrap(), last, "one by one where there is no other way");
        bench.server.faults().clear();
    }
    assert_eq!(bucket.keys(), ["team/2/1002"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_nobody_ended_are_given_back_in_time() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    let refused = Fault::Answer { status: 403, code: "AccessDenied" };
    for kind in [RequestKind::UploadPart, RequestKind::AbortMultipartUpload] {
        bench.server.faults().add(refused.clone().always().on(kind));
    }
    assert!(pool.upload("1/e/1", file_of(17 * MIB), 17 * MIB).await.is_err());
    while bench.server.count(RequestKind::AbortMultipartUpload) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.server.faults().clear();
    let bucket = bench.server.bucket("data");
    assert_eq!(pool.abort_stale_uploads(Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(bucket.uploads().len(), 1, "a young one may still be at work");
    assert_eq!(pool.abort_stale_uploads(Duration::ZERO).await.unwrap(), 1);
    assert!(bucket.uploads().is_empty());
}
