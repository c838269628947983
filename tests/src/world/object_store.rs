//! Worlds whose tenants live in an object store.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;

use super::{Binaries, World};
use crate::s3::S3Server;

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
        let server = S3Server::with_bucket(BUCKET);
        world.add_store(&server);
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

    fn add_store(&self, server: &S3Server) {
        let credentials = self.dir().join("credentials");
        let text = "[default]\naws_access_key_id = root\naws_secret_access_key = root-secret\n";
        let options = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&credentials);
        std::io::Write::write_all(&mut options.expect("make the credentials"), text.as_bytes())
            .expect("write the credentials");
        let (bucket, credentials) = (format!("{BUCKET}/{PREFIX}"), format!("file:{}", credentials.display()));
        let endpoint = server.endpoint();
        let to_bucket = ["pool", "add", POOL, "--s3", &bucket, "--endpoint", &endpoint, "--path-style"];
        self.ctl(&[&to_bucket[..], &["--credentials", &credentials]].concat());
    }
}
