//! Worlds whose tenants live in an object store.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;

use super::{Binaries, World};
use crate::s3::{Authority, S3Options, S3Server, User};

/// The bucket of the pool.
pub(super) const BUCKET: &str = "vmds";
/// What all keys of the pool begin with.
pub(super) const PREFIX: &str = "pool";
/// The name of the pool.
pub(super) const POOL: &str = "objects";

impl World {
    /// Starts a controller with a pool in an object store, in which tenants are created from now on.
    #[track_caller]
    pub fn start_on_objects(binaries: Binaries) -> Self {
        let mut world = Self::start_with(binaries, &[]);
        let server = S3Server::start(options());
        world.add_store(&server, &[]);
        world.objects = Some(server);
        world
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

    /// The object store that its tenants live in.
    ///
    /// # Panics
    /// If they live elsewhere.
    #[track_caller]
    pub fn objects(&self) -> &S3Server {
        self.objects.as_ref().expect("this world has no object store")
    }

    fn add_store(&self, server: &S3Server, more: &[&str]) {
        let credentials = self.dir().join("credentials");
        let text = "[default]\naws_access_key_id = root\naws_secret_access_key = root-secret\n";
        let options = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&credentials);
        std::io::Write::write_all(&mut options.expect("make the credentials"), text.as_bytes())
            .expect("write the credentials");
        let (bucket, credentials) = (format!("{BUCKET}/{PREFIX}"), format!("file:{}", credentials.display()));
        let endpoint = server.endpoint();
        let to_bucket = ["pool", "add", POOL, "--s3", &bucket, "--endpoint", &endpoint, "--path-style"];
        self.ctl(&[&to_bucket[..], &["--credentials", &credentials], more].concat());
    }
}

/// A bucket, and who may do everything in it.
fn options() -> S3Options {
    S3Options::new().bucket(BUCKET).user(User::new("root", "root-secret").may_do_all())
}
