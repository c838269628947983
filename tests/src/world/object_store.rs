//! Worlds whose tenants live in an object store, and where bytes are in either kind of world.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Binaries, World};
use crate::s3::{Authority, S3Bucket, S3Options, S3Server, User};

/// The bucket of the pool.
pub(super) const BUCKET: &str = "vmds";
/// What all keys of the pool begin with.
pub(super) const PREFIX: &str = "pool";
/// The name of the pool.
pub(super) const POOL: &str = "objects";

/// Who the controller is to the object store.
const ACCESS_KEY: &str = "AKCONTROLLER";
/// What nobody but the controller may know.
const SECRET_KEY: &str = "tHeSecretOfThePool/0123456789+abcdef";

impl World {
    /// Starts a controller with a pool in an object store, in which tenants are created from now on.
    #[track_caller]
    pub fn start_on_objects(binaries: Binaries) -> Self {
        Self::start_on_objects_with(binaries, &[], &[])
    }

    /// The same with more arguments for the controller, and more for the pool.
    #[track_caller]
    pub fn start_on_objects_with(binaries: Binaries, arguments: &[&str], pool: &[&str]) -> Self {
        let mut world = Self::start_with(binaries, arguments);
        let server = S3Server::start(options());
        world.add_store(&server, pool);
        world.objects = Some(server);
        world
    }

    /// The same, with a disk cache of so many bytes, like `64MiB`.
    #[track_caller]
    pub fn start_on_cached_objects(binaries: Binaries, bytes: &str) -> Self {
        let mut world = Self::start_with(binaries, &[]);
        let server = S3Server::start(options());
        let cache = world.cache_dir();
        let cache = cache.to_str().expect("test paths are text");
        world.add_store(&server, &["--disk-cache", cache, "--disk-cache-bytes", bytes]);
        world.objects = Some(server);
        world
    }

    /// Where the disk cache of [`World::start_on_cached_objects`] is.
    pub fn cache_dir(&self) -> PathBuf {
        self.dir().join("cache")
    }

    /// The same, where the object store speaks TLS.
    #[track_caller]
    pub fn start_on_objects_over_tls(binaries: Binaries) -> Self {
        let authority = Authority::new();
        let mut world = Self::start_with(binaries, &[]);
        let trusted = world.dir().join("trusted.pem");
        fs::write(&trusted, authority.pem()).expect("write a certificate");
        let trusted = trusted.to_str().expect("test paths are text");
        let server = S3Server::start(options().tls(authority.serve_as("127.0.0.1")));
        world.add_store(&server, &["--ca-file", trusted]);
        world.objects = Some(server);
        world
    }

    /// Whether its tenants live in an object store.
    pub fn has_objects(&self) -> bool {
        self.objects.is_some()
    }

    /// The object store that its tenants live in.
    ///
    /// # Panics
    /// If they live elsewhere.
    #[track_caller]
    pub fn objects(&self) -> &S3Server {
        self.objects.as_ref().expect("this world has no object store")
    }

    /// The bucket that its tenants live in.
    ///
    /// # Panics
    /// If they live elsewhere.
    #[track_caller]
    pub fn bucket(&self) -> S3Bucket {
        self.objects().bucket(BUCKET)
    }

    /// The secret half of the controller's credentials.
    pub fn secret_key(&self) -> &'static str {
        SECRET_KEY
    }

    /// Where the backing files of its tenants are, unless its pool was told otherwise.
    pub fn backing_dir(&self) -> PathBuf {
        match self.objects {
            Some(_) => self.state_dir().join("staging").join(POOL),
            None => self.state_dir().join("pool"),
        }
    }

    /// Sizes of all objects and backing files of its tenants, in no order.
    pub fn stored_sizes(&self) -> Vec<u64> {
        let mut sizes = file_sizes(&self.backing_dir());
        if self.has_objects() {
            let bucket = self.bucket();
            sizes.extend(bucket.keys().iter().filter_map(|key| Some(bucket.info(key)?.length)));
        }
        sizes
    }

    /// The bytes that a range of `locate` says are a file's.
    ///
    /// # Panics
    /// If there are none there.
    #[track_caller]
    pub fn bytes_at(&self, range: &Value) -> Vec<u8> {
        match range["path"].as_str() {
            Some(path) => fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}")),
            None => {
                let key = format!("{PREFIX}/{}", range["key"].as_str().expect("a range has a key"));
                self.bucket().get(&key).unwrap_or_else(|| panic!("no object {key}")).to_vec()
            }
        }
    }

    fn add_store(&self, server: &S3Server, more: &[&str]) {
        let credentials = self.dir().join("credentials");
        let text =
            format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
        let options = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&credentials);
        std::io::Write::write_all(&mut options.expect("make the credentials"), text.as_bytes())
            .expect("write the credentials");
        let (bucket, credentials) = (format!("{BUCKET}/{PREFIX}"), format!("file:{}", credentials.display()));
        let endpoint = server.endpoint();
        let to_bucket = ["pool", "add", POOL, "--s3", &bucket, "--endpoint", &endpoint, "--path-style"];
        self.ctl(&[&to_bucket[..], &["--credentials", &credentials], more].concat());
    }
}

/// Sizes of all files below a directory, as far as they stay there.
fn file_sizes(dir: &Path) -> Vec<u64> {
    let mut sizes = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => sizes.extend(file_sizes(&entry.path())),
            Ok(metadata) => sizes.push(metadata.len()),
            // Removed meanwhile.
            Err(_) => {}
        }
    }
    sizes
}

/// A bucket, and who may do everything in it.
fn options() -> S3Options {
    S3Options::new().bucket(BUCKET).user(User::new(ACCESS_KEY, SECRET_KEY).may_do_all())
}
