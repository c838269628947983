//! Worlds whose tenants live in an object store, and where bytes are in either kind of world.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::{Binaries, Bucket, World};
use crate::outside::OutsideStore;
use crate::s3::{Authority, S3Options, S3Server, User};

/// The bucket of the pool, on the tests' own server.
pub(super) const BUCKET: &str = "vmds";
/// What all keys of the pool begin with.
pub(super) const PREFIX: &str = "pool";
/// The name of the pool.
pub(super) const POOL: &str = "objects";

/// Who the controller is to the tests' own server.
const ACCESS_KEY: &str = "AKCONTROLLER";
/// What nobody but the controller may know.
const SECRET_KEY: &str = "tHeSecretOfThePool/0123456789+abcdef";

/// An object store that tenants live in.
#[derive(Debug)]
pub(super) enum Store {
    /// A server of this world's own.
    Own(S3Server),
    /// A part of one that was there before.
    Outside(Arc<OutsideStore>),
}

impl World {
    /// Starts a controller with a pool in an object store, in which tenants are created from now on: in the one that the
    /// environment names (see [`OutsideStore::named`]), or else a server of this world's own.
    #[track_caller]
    pub fn start_on_objects(binaries: Binaries) -> Self {
        Self::start_on_objects_with(binaries, &[], &[])
    }

    /// The same with more arguments for the controller, and more for the pool.
    #[track_caller]
    pub fn start_on_objects_with(binaries: Binaries, arguments: &[&str], pool: &[&str]) -> Self {
        let store = match OutsideStore::named() {
            Some(store) => Store::Outside(Arc::new(store)),
            None => Store::Own(S3Server::start(options())),
        };
        let mut world = Self::start_with(binaries, arguments);
        world.add_store(&store, pool);
        world.objects = Some(store);
        world
    }

    /// The same on a server of this world's own, with a disk cache of so many bytes, like `64MiB`.
    #[track_caller]
    pub fn start_on_cached_objects(binaries: Binaries, bytes: &str) -> Self {
        let mut world = Self::start_with(binaries, &[]);
        let store = Store::Own(S3Server::start(options()));
        let cache = world.cache_dir();
        let cache = cache.to_str().expect("test paths are text");
        world.add_store(&store, &["--disk-cache", cache, "--disk-cache-bytes", bytes]);
        world.objects = Some(store);
        world
    }

    /// Where the disk cache of [`World::start_on_cached_objects`] is.
    pub fn cache_dir(&self) -> PathBuf {
        self.dir().join("cache")
    }

    /// The same, where the object store is a server of this world's own and speaks TLS.
    #[track_caller]
    pub fn start_on_objects_over_tls(binaries: Binaries) -> Self {
        let authority = Authority::new();
        let mut world = Self::start_with(binaries, &[]);
        let trusted = world.dir().join("trusted.pem");
        fs::write(&trusted, authority.pem()).expect("write a certificate");
        let trusted = trusted.to_str().expect("test paths are text");
        let store = Store::Own(S3Server::start(options().tls(authority.serve_as("127.0.0.1"))));
        world.add_store(&store, &["--ca-file", trusted]);
        world.objects = Some(store);
        world
    }

    /// Whether its tenants live in an object store.
    pub fn has_objects(&self) -> bool {
        self.objects.is_some()
    }

    /// The tests' own object store that its tenants live in.
    ///
    /// # Panics
    /// If they live elsewhere: this test is not for other stores.
    #[track_caller]
    pub fn objects(&self) -> &S3Server {
        match &self.objects {
            Some(Store::Own(server)) => server,
            Some(Store::Outside(_)) => panic!("this test needs an object store of the tests' own"),
            None => panic!("this world has no object store"),
        }
    }

    /// The bucket that its tenants live in.
    ///
    /// # Panics
    /// If they live elsewhere.
    #[track_caller]
    pub fn bucket(&self) -> Bucket {
        match &self.objects {
            Some(Store::Outside(store)) => Bucket::Outside(store.clone()),
            _ => Bucket::Own(self.objects().bucket(BUCKET)),
        }
    }

    /// How commands name what is below a prefix of the bucket.
    ///
    /// # Panics
    /// If its tenants do not live in one.
    #[track_caller]
    pub fn place(&self, prefix: &str) -> String {
        self.objects.as_ref().expect("this world has no object store").place(prefix)
    }

    /// The secret half of the controller's credentials for the tests' own server.
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

    fn add_store(&self, store: &Store, more: &[&str]) {
        let credentials = self.dir().join("credentials");
        let (access_key, secret_key) = store.keys();
        let text =
            format!("[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n");
        let options = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&credentials);
        std::io::Write::write_all(&mut options.expect("make the credentials"), text.as_bytes())
            .expect("write the credentials");
        let (bucket, credentials) = (store.place(PREFIX), format!("file:{}", credentials.display()));
        let endpoint = store.endpoint();
        let to_bucket = ["pool", "add", POOL, "--s3", &bucket, "--endpoint", &endpoint, "--path-style"];
        let as_whom = ["--region", store.region(), "--credentials", &credentials];
        self.ctl(&[&to_bucket[..], &as_whom, more].concat());
    }
}

impl Store {
    fn endpoint(&self) -> String {
        match self {
            Store::Own(server) => server.endpoint(),
            Store::Outside(store) => store.endpoint().to_owned(),
        }
    }

    fn region(&self) -> &str {
        match self {
            Store::Own(server) => server.region(),
            Store::Outside(store) => store.region(),
        }
    }

    /// The credentials of the controller: the public half, and the secret one.
    fn keys(&self) -> (&str, &str) {
        match self {
            Store::Own(_) => (ACCESS_KEY, SECRET_KEY),
            Store::Outside(store) => (store.access_key(), store.secret_key()),
        }
    }

    /// What is below a prefix of the bucket, with the bucket's name.
    fn place(&self, prefix: &str) -> String {
        match self {
            Store::Own(_) => format!("{BUCKET}/{prefix}"),
            Store::Outside(store) => format!("{}/{}{prefix}", store.bucket(), store.prefix()),
        }
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
