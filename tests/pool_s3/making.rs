//! Objects that are made in parts, of which not all are sent when the file is complete.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use controller::pool::s3::Base;
use tests::s3::{Fault, RequestKind};

use crate::{Bench, MIB, bytes, content, file_of};

fn change(file: &Arc<OwnedFd>, at: u64, text: &[u8]) {
    assert_eq!(rustix::io::pwrite(file.as_fd(), text, at).unwrap(), text.len());
}

/// Waits until so many parts were sent, or some time is over.
async fn await_parts(bench: &Bench, parts: u64) {
    for _ in 0..400 {
        if bench.server.count(RequestKind::UploadPart) >= parts {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_go_ahead_and_those_that_were_changed_go_again() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    let (size, runtime) = (43 * MIB, tokio::runtime::Handle::current());
    let file = file_of(size);
    let new = pool.new_object("1/a/1", file.clone()).unwrap();
    new.advance(&runtime, 23 * MIB);
    assert_eq!(bench.server.count(RequestKind::CreateMultipartUpload), 0, "that might be all");
    new.advance(&runtime, 25 * MIB);
    await_parts(&bench, 3).await;
    assert_eq!(bench.server.count(RequestKind::UploadPart), 3, "those that are complete");
    change(&file, 9 * MIB, b"changed");
    let made = new.finish(size, None).await.unwrap();
    // 6 parts, and the second one again.
    assert_eq!(bench.server.count(RequestKind::UploadPart), 7);
    let object = bench.server.bucket("data").get("team/1/a/1").unwrap();
    assert!(object == content(&file));
    assert_eq!(made.sums, address_map::sums::of_all(&object));
    assert!(bench.server.bucket("data").uploads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_after_its_parts_went_ahead_is_what_it_is_at_the_end() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    for (key, size) in [("1/b/1", 3 * MIB), ("1/b/2", 20 * MIB), ("1/b/3", 24 * MIB)] {
        bench.server.forget_requests();
        let file = file_of(48 * MIB);
        let new = pool.new_object(key, file.clone()).unwrap();
        new.advance(&tokio::runtime::Handle::current(), 48 * MIB);
        await_parts(&bench, 4).await;
        rustix::fs::ftruncate(&file, size).unwrap();
        new.finish(size, None).await.unwrap();
        drop(new);
        assert!(bench.server.bucket("data").get(&format!("team/{key}")).unwrap() == bytes(size), "{size}");
    }
    for _ in 0..400 {
        if bench.server.bucket("data").uploads().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("what went ahead of the file that became small is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_cannot_go_ahead_go_at_the_end() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    let denied = Fault::Answer { status: 403, code: "AccessDenied" };
    let fault = bench.server.faults().add(denied.always().on(RequestKind::UploadPart));
    let new = pool.new_object("1/c/1", file_of(30 * MIB)).unwrap();
    new.advance(&tokio::runtime::Handle::current(), 30 * MIB);
    for _ in 0..400 {
        if bench.server.faults().hits(fault) > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    bench.server.faults().clear();
    new.finish(30 * MIB, None).await.unwrap();
    assert!(bench.server.bucket("data").get("team/1/c/1").unwrap() == bytes(30 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_copied_at_the_endpoint() {
    let bench = Bench::start();
    let pool = bench.pool().await;
    let (old_size, size) = (45 * MIB, 50 * MIB);
    let old = pool.upload("1/d/1", file_of(old_size), old_size).await.unwrap();
    bench.server.forget_requests();
    // The file has only what is new: the third part, and what lies behind the old end.
    let mut expected = bytes(old_size);
    expected.resize(50 << 20, 9);
    let at = 18 << 20;
    expected[at..at + 7].copy_from_slice(b"changed");
    let file: Arc<OwnedFd> = Arc::new(tempfile::tempfile().unwrap().into());
    change(&file, 16 * MIB, &expected[16 << 20..24 << 20]);
    change(&file, 40 * MIB, &expected[40 << 20..]);
    let base = Base {
        key: "1/d/1".to_owned(),
        etag: old.stored.etag.clone(),
        same: vec![0..16 * MIB, 24 * MIB..40 * MIB],
        sums: old.sums,
    };
    let made = pool.new_object("1/d/2", file.clone()).unwrap().finish(size, Some(&base)).await.unwrap();
    let object = bench.server.bucket("data").get("team/1/d/2").unwrap();
    assert!(object == expected);
    assert_eq!(made.sums, address_map::sums::of_all(&object));
    let copies = bench.server.requests_of(RequestKind::UploadPartCopy);
    assert_eq!(copies.len(), 4);
    // There are servers that insist on it.
    assert!(copies.iter().all(|copy| copy.header("content-length") == Some("0")), "{copies:?}");
    assert_eq!(bench.server.count(RequestKind::UploadPart), 3);
    // Another object under the old key is not copied from.
    bench.server.bucket("data").put("team/1/d/1", vec![1; 45 << 20]);
    let failed = pool.new_object("1/d/3", file).unwrap().finish(size, Some(&base)).await;
    assert!(failed.is_err(), "{failed:?}");
    assert_eq!(bench.server.bucket("data").get("team/1/d/3"), None);
}
