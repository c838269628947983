//! What a probe finds, and what it says when a pool cannot work.

use std::os::unix::fs::PermissionsExt;

use controller::pool::s3::{Page, S3Error, S3Pool};
use controller::resource::{EtagForm, S3Spec};
use tests::s3::{Fault, RequestKind, User};

use crate::{Bench, ID, SECRET};

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_finds_out_what_the_endpoint_can() {
    let bench = Bench::start();
    let pool = bench.pool_of(&bench.spec(SECRET));
    assert_eq!(pool.capabilities(), None);
    let can = pool.probe().await.unwrap();
    assert!(can.conditional_put && can.conditional_get && can.checksums && can.multipart_copy, "{can:?}");
    assert!(can.etags == EtagForm::Quoted && can.clock_skew_seconds.abs() <= 2, "{can:?}");
    assert_eq!(can.notes, Vec::<String>::new());
    assert_eq!(pool.capabilities().as_deref(), Some(&can));
    assert_eq!(pool.list(None).await.unwrap(), Page::default());
    let bucket = bench.server.bucket("data");
    assert!(bucket.keys().is_empty() && bucket.uploads().is_empty(), "nothing of the probe stays");
    bench.server.forget_requests();
    pool.check().await.unwrap();
    assert_eq!(bench.server.requests().len(), 1, "looking again is cheap");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_in_a_sentence_without_secrets() {
    let bench = Bench::start();
    let pool = bench.pool_of(&bench.spec("anotherSecret"));
    let told = pool.probe().await.unwrap_err();
    let sentence = "objects cannot be written: the endpoint refuses access (SignatureDoesNotMatch)";
    assert_eq!(told.to_string(), sentence);
    for shown in [format!("{told:?}"), format!("{pool:?}")] {
        assert!(!shown.contains("anotherSecret") && !shown.contains(ID), "{shown}");
    }
    assert!(pool.check().await.is_err() && pool.capabilities().is_none());

    let elsewhere = S3Spec { prefix: "other".to_owned(), ..bench.spec(SECRET) };
    let told = bench.pool_of(&elsewhere).probe().await.unwrap_err();
    assert_eq!(told.to_string(), "objects cannot be written: the endpoint refuses access (AccessDenied)");

    bench.server.set_user(User::new(ID, SECRET).may_do_all());
    let nothing = S3Spec { bucket: "nothing".to_owned(), ..bench.spec(SECRET) };
    let told = bench.pool_of(&nothing).probe().await.unwrap_err();
    assert_eq!(told.to_string(), "objects cannot be written: the bucket does not exist");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_at_the_endpoint_may_pass() {
    let bench = Bench::start();
    let nobody = S3Spec { endpoint: Some("http://127.0.0.1:1".to_owned()), ..bench.spec(SECRET) };
    let told = bench.pool_of(&nobody).probe().await.unwrap_err();
    assert!(matches!(&told, S3Error::Unavailable(why) if why == "connection refused"), "{told:?}");
    assert!(told.may_pass());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_deleted_makes_no_pool() {
    let bench = Bench::start();
    let refused = Fault::Answer { status: 403, code: "AccessDenied" };
    bench.server.faults().add(refused.always().on(RequestKind::DeleteObject));
    let told = bench.pool_of(&bench.spec(SECRET)).probe().await.unwrap_err();
    assert_eq!(told.to_string(), "objects cannot be deleted: the endpoint refuses access (AccessDenied)");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_listed_is_noted() {
    let bench = Bench::start();
    let refused = Fault::Answer { status: 403, code: "AccessDenied" };
    bench.server.faults().add(refused.always().on(RequestKind::ListObjectsV2));
    let can = bench.pool_of(&bench.spec(SECRET)).probe().await.unwrap();
    assert_eq!(can.notes.len(), 1, "{can:?}");
    assert!(can.notes[0].starts_with("objects cannot be listed"), "{can:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staging_directory_is_made_for_the_controller_alone() {
    let bench = Bench::start();
    let pool = bench.pool_of(&bench.spec(SECRET));
    let mode = std::fs::metadata(pool.staging()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    std::fs::set_permissions(pool.staging(), PermissionsExt::from_mode(0o755)).unwrap();
    let told = S3Pool::open(pool.settings().clone()).unwrap_err().to_string();
    assert!(told.contains("is open to others (mode 0755); make it 0700"), "{told}");
}
