//! The same pool on Ceph's RGW, as `tests/rgw` starts it: `tests/rgw cargo test -p tests --test pool_s3 -- --ignored`.
//!
//! What differs from the tests' own server is in `docs/OPERATIONS.md`, "Stores known to work".

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use controller::pool::s3::{Base, S3Error, S3Pool, S3Settings, Span};
use controller::resource::{CredentialsSpec, EtagForm, S3Spec, Versioning};
use tests::OutsideStore;
use tokio::runtime::Runtime;

use crate::addresses::read;
use crate::{MIB, bytes, content, empty, file_of};

const MINUTE: Duration = Duration::from_secs(60);

/// A part of the store's bucket, and what a pool needs around it.
struct Rgw {
    dir: tempfile::TempDir,
    store: OutsideStore,
    runtime: Runtime,
}

impl Rgw {
    fn start() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            store: OutsideStore::named().expect("this test is run by `tests/rgw`"),
            runtime: Runtime::new().unwrap(),
        }
    }

    fn pool_in(&self, bucket: &str) -> S3Pool {
        let (path, store) = (self.dir.path().join("keys"), &self.store);
        let mut open = std::fs::OpenOptions::new();
        let mut file = open.write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        let (id, secret) = (store.access_key(), store.secret_key());
        write!(file, "[default]\naws_access_key_id={id}\naws_secret_access_key={secret}\n").unwrap();
        let spec = S3Spec {
            disk_cache: None,
            bucket: bucket.to_owned(),
            prefix: format!("{}team", store.prefix()),
            endpoint: Some(store.endpoint().to_owned()),
            region: Some(store.region().to_owned()),
            path_style: true,
            credentials: CredentialsSpec::File { path, profile: None },
            staging: None,
            ca_file: None,
            lease_seconds: None,
        };
        let staging = self.dir.path().join("staging");
        S3Pool::open(S3Settings::new(&spec, staging, Duration::from_secs(30)).unwrap()).unwrap()
    }

    /// A pool that was probed.
    fn pool(&self) -> S3Pool {
        let pool = self.pool_in(self.store.bucket());
        self.run(pool.probe()).unwrap();
        pool
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// All of an object, past the pool.
    fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.store.get(&format!("team/{key}")).map(|bytes| bytes.to_vec())
    }
}

#[test]
#[ignore = "needs the store that tests/rgw starts"]
fn a_user_who_may_do_what_the_policy_says_has_a_pool_that_can_what_is_documented() {
    let rgw = Rgw::start();
    let can = rgw.run(rgw.pool_in(rgw.store.bucket()).probe()).unwrap();
    assert!(can.conditional_put && can.conditional_get && can.multipart_copy, "{can:?}");
    assert!(can.etags == EtagForm::Quoted && !can.checksums, "{can:?}");
    assert!(can.versioning == Versioning::Off && can.clock_skew_seconds.abs() <= 2, "{can:?}");
    assert_eq!(can.notes, Vec::<String>::new());
    assert!(rgw.store.keys().is_empty() && rgw.store.uploads().is_empty(), "nothing of the probe stays");
}

#[test]
#[ignore = "needs the store that tests/rgw starts"]
fn a_bucket_with_versions_is_noted_and_one_without_rights_is_refused() {
    let rgw = Rgw::start();
    let can = rgw.run(rgw.pool_in(&format!("{}-versioned", rgw.store.bucket())).probe()).unwrap();
    assert_eq!(can.versioning, Versioning::On, "{can:?}");
    // The conditions of PUT count for buckets without versions only.
    assert_eq!(can.notes.len(), 2, "{can:?}");
    assert!(can.notes[0].starts_with("the endpoint ignores If-None-Match"), "{can:?}");
    assert_eq!(can.notes[1], "the bucket keeps old versions: deleted files still take space");
    let told = rgw.run(rgw.pool_in("closed").probe()).unwrap_err();
    assert_eq!(told.to_string(), "objects cannot be written: the endpoint refuses access (AccessDenied)");
    let told = rgw.run(rgw.pool_in("nothing").probe()).unwrap_err();
    assert_eq!(told.to_string(), "objects cannot be written: the bucket does not exist");
}

#[test]
#[ignore = "needs the store that tests/rgw starts"]
fn files_of_all_sizes_come_back_as_they_went() {
    let rgw = Rgw::start();
    let pool = rgw.pool();
    for size in [0, 1, 5 * MIB, 16 * MIB, 16 * MIB + 1, 40 * MIB + 12_345] {
        let (key, back) = (format!("1/a/{size:x}"), empty());
        let stored = rgw.run(pool.upload(&key, file_of(size), size)).unwrap().stored;
        assert_eq!(rgw.run(pool.head(&key)).unwrap(), Some(stored.clone()));
        assert!(rgw.object(&key).unwrap() == bytes(size), "{size}");
        rgw.run(pool.download(&key, &stored.etag, size, 0..size, back.clone())).unwrap();
        assert!(content(&back) == bytes(size), "{size}");
    }
    let again = rgw.run(pool.upload("1/a/1", file_of(1), 1));
    assert!(matches!(again, Err(S3Error::Exists)), "{again:?}");
    // An object of parts is; but keys are never used twice.
    let again = rgw.run(pool.upload("1/a/1000001", file_of(17 * MIB), 17 * MIB));
    assert!(again.is_ok(), "{again:?}");
    assert!(rgw.store.uploads().is_empty());
    assert_eq!(rgw.run(pool.head("1/a/none")).unwrap(), None);
}

#[test]
#[ignore = "needs the store that tests/rgw starts"]
fn what_has_not_changed_is_copied_at_the_store() {
    let rgw = Rgw::start();
    let pool = rgw.pool();
    let size = 45 * MIB;
    let old = rgw.run(pool.upload("1/b/1", file_of(size), size)).unwrap();
    // The file has only what is new: without a copy the object would have holes.
    let mut expected = bytes(size);
    expected[18 << 20..][..7].copy_from_slice(b"changed");
    let file: Arc<OwnedFd> = Arc::new(tempfile::tempfile().unwrap().into());
    rustix::io::pwrite(file.as_fd(), &expected[16 << 20..24 << 20], 16 * MIB).unwrap();
    rustix::fs::ftruncate(&file, size).unwrap();
    let base = Base {
        key: "1/b/1".to_owned(),
        etag: old.stored.etag,
        same: vec![0..16 * MIB, 24 * MIB..size],
        sums: old.sums,
    };
    let made = rgw.run(pool.new_object("1/b/2", file.clone()).unwrap().finish(size, Some(&base))).unwrap();
    assert!(rgw.object("1/b/2").unwrap() == expected);
    assert_eq!(made.sums, address_map::sums::of_all(&expected));
    // Another object under the old key is not copied from, whatever RGW makes of the condition.
    rgw.store.put("team/1/b/1", vec![1; 45 << 20]);
    let failed = rgw.run(pool.new_object("1/b/3", file).unwrap().finish(size, Some(&base)));
    assert!(matches!(failed, Err(S3Error::Changed)), "{failed:?}");
    assert!(rgw.object("1/b/3").is_none());
}

#[test]
#[ignore = "needs the store that tests/rgw starts"]
fn addresses_lead_to_one_version_of_one_object_for_a_while() {
    let rgw = Rgw::start();
    let pool = rgw.pool();
    let stored = rgw.run(pool.upload("1/c/1", file_of(1000), 1000)).unwrap().stored;
    rgw.run(pool.upload("1/c/2", file_of(10), 10)).unwrap();
    let signed = rgw.run(pool.sign_get_matching("1/c/1", &stored.etag, None, MINUTE)).unwrap();
    let ask = |signed, range| rgw.run(read(&pool, signed, range));
    assert_eq!(ask(&signed, None), (200, bytes(1000)));
    assert_eq!(ask(&signed, Some("bytes=10-19")), (206, bytes(1000)[10..20].to_vec()));
    let mut other = signed.clone();
    other.path_and_query = other.path_and_query.replace("/1/c/1?", "/1/c/2?");
    assert_eq!(ask(&other, None).0, 403);
    let mut any_version = signed.clone();
    any_version.headers.clear();
    assert_eq!(ask(&any_version, None).0, 403, "the ETag is signed");
    let short = rgw.run(pool.sign_get("1/c/1", None, Duration::from_secs(1))).unwrap();
    while SystemTime::now() <= short.expires + Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ask(&short, None).0, 403);
    rgw.store.put("team/1/c/1", vec![7; 1000]);
    assert_eq!(ask(&signed, None).0, 412);
    let gone = rgw.run(pool.download("1/c/1", &stored.etag, 1000, 0..1000, empty()));
    assert!(matches!(gone, Err(S3Error::Changed)), "{gone:?}");
}

#[test]
#[ignore = "needs the store that tests/rgw starts"]
fn lists_come_in_pages_and_by_directory_and_what_is_deleted_is_gone() {
    let rgw = Rgw::start();
    let pool = rgw.pool();
    for number in 0..1003 {
        rgw.store.put(&format!("team/2/{number:04}"), "x");
    }
    rgw.store.put("team2/1", "not ours");
    rgw.store.put("team/odd/a b+c%/\u{fc}", "x");
    let first = rgw.run(pool.list(None)).unwrap();
    assert_eq!((first.objects.len(), first.objects[0].key.as_str()), (1000, "2/0000"));
    let second = rgw.run(pool.list(first.next)).unwrap();
    let rest: Vec<_> = second.objects.iter().map(|listed| listed.key.as_str()).collect();
    assert_eq!((rest, second.next), (vec!["2/1000", "2/1001", "2/1002", "odd/a b+c%/\u{fc}"], None));

    let span = |below: &str, by_directory| Span {
        prefix: format!("{}{below}", rgw.store.prefix()),
        after: None,
        by_directory,
    };
    let found = rgw.run(pool.browse(&span("team/odd/", true), None)).unwrap();
    assert_eq!(found.directories, [format!("{}team/odd/a b+c%/", rgw.store.prefix())]);
    let first = rgw.run(pool.browse(&span("team/2/", true), None)).unwrap();
    let second = rgw.run(pool.browse(&span("team/2/", true), first.next)).unwrap();
    assert_eq!((first.objects.len(), second.objects.len(), second.next), (1000, 3, None));

    let mut keys: Vec<_> = (1..1003).map(|number| format!("2/{number:04}")).collect();
    keys.push("2/missing".to_owned());
    assert_eq!(rgw.run(pool.delete(&keys)).unwrap(), keys);
    assert_eq!(rgw.store.keys(), ["team/2/0000", "team/odd/a b+c%/\u{fc}", "team2/1"]);
}

#[test]
#[ignore = "needs the store that tests/rgw starts"]
fn uploads_that_nobody_ends_are_given_back() {
    let rgw = Rgw::start();
    let pool = rgw.pool();
    rgw.store.begin_upload("team/1/d/1");
    assert_eq!(rgw.run(pool.abort_stale_uploads(Duration::from_secs(3600))).unwrap(), 0);
    assert_eq!(rgw.store.uploads().len(), 1, "a young one may still be at work");
    assert_eq!(rgw.run(pool.abort_stale_uploads(Duration::ZERO)).unwrap(), 1);
    assert!(rgw.store.uploads().is_empty());
}
