//! The controller's S3 pool against a server that verifies signatures and fails on demand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail right there")]

mod addresses;
mod controlled;
mod failures;
mod garbage;
mod making;
mod objects;
mod probing;
mod relays;
mod rgw;

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use controller::pool::s3::{S3Pool, S3Settings};
use controller::resource::{CredentialsSpec, S3Spec};
use tests::s3::{Authority, S3Options, S3Server, User};

const ID: &str = "AKTEST";
const SECRET: &str = "s3cretOfTheTest";
const MIB: u64 = 1 << 20;

/// A server with the bucket `data`, a user who may do everything below `team/` and nothing else, and what a pool
/// needs around it.
struct Bench {
    dir: tempfile::TempDir,
    server: S3Server,
    /// Who signs the server's certificate, if it has one.
    trusted: Option<PathBuf>,
}

impl Bench {
    fn start() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), server: S3Server::start(options()), trusted: None }
    }

    /// The same with TLS.
    fn start_over_tls() -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let trusted = dir.path().join("trusted.pem");
        std::fs::write(&trusted, authority.pem()).unwrap();
        let server = S3Server::start(options().tls(authority.serve_as("127.0.0.1")));
        Self { dir, server, trusted: Some(trusted) }
    }

    fn spec(&self, secret: &str) -> S3Spec {
        let keys = self.dir.path().join("keys");
        let mut open = std::fs::OpenOptions::new();
        let mut file = open.write(true).create(true).truncate(true).mode(0o600).open(&keys).unwrap();
        write!(file, "[default]\naws_access_key_id={ID}\naws_secret_access_key={secret}\n").unwrap();
        S3Spec {
            bucket: "data".to_owned(),
            prefix: "team".to_owned(),
            endpoint: Some(self.server.endpoint()),
            region: None,
            path_style: true,
            credentials: CredentialsSpec::File { path: keys, profile: None },
            staging: None,
            ca_file: self.trusted.clone(),
            lease_seconds: None,
            disk_cache: None,
        }
    }

    fn pool_of(&self, spec: &S3Spec) -> S3Pool {
        let staging = self.dir.path().join("staging");
        S3Pool::open(S3Settings::new(spec, staging, Duration::from_secs(30)).unwrap()).unwrap()
    }

    /// A pool that was probed; the requests for that are forgotten.
    async fn pool(&self) -> S3Pool {
        let pool = self.pool_of(&self.spec(SECRET));
        pool.probe().await.unwrap();
        self.server.forget_requests();
        pool
    }
}

fn options() -> S3Options {
    S3Options::new().bucket("data").user(User::new(ID, SECRET).may_write("data", "team/"))
}

/// Bytes that do not repeat in step with parts.
fn bytes(size: u64) -> Vec<u8> {
    let block: Vec<u8> = (0..65_521u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    block.iter().copied().cycle().take(usize::try_from(size).unwrap()).collect()
}

fn file_of(size: u64) -> Arc<OwnedFd> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes(size)).unwrap();
    Arc::new(file.into())
}

fn empty() -> Arc<OwnedFd> {
    Arc::new(tempfile::tempfile().unwrap().into())
}

fn content(file: &OwnedFd) -> Vec<u8> {
    let mut file = std::fs::File::from(file.try_clone().unwrap());
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}
