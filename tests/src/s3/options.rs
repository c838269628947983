//! What a server is started with.

use super::tls::ServerTls;

/// What a server is started with: its buckets, its users, and how exactly it behaves.
#[derive(Clone, Debug)]
pub struct S3Options {
    pub(super) buckets: Vec<String>,
    pub(super) users: Vec<User>,
    pub(super) min_part_size: u64,
    pub(super) md5_etags: bool,
    pub(super) threads: usize,
    pub(super) tls: Option<ServerTls>,
}

impl S3Options {
    /// A server without buckets and users.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buckets: Vec::new(),
            users: Vec::new(),
            min_part_size: 5 << 20,
            md5_etags: true,
            threads: 2,
            tls: None,
        }
    }

    /// With this bucket, empty.
    ///
    /// # Panics
    /// If S3 allows no such name.
    #[must_use]
    pub fn bucket(mut self, name: &str) -> Self {
        assert!(s3s::path::check_bucket_name(name), "not a bucket name: {name}");
        self.buckets.push(name.to_owned());
        self
    }

    /// With this user.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.users.push(user);
        self
    }

    /// The smallest part, in bytes, that is not the last of its upload; S3's 5 MiB unless said otherwise.
    #[must_use]
    pub fn min_part_size(mut self, bytes: u64) -> Self {
        self.min_part_size = bytes;
        self
    }

    /// ETags that are not the MD5 of the bytes, as S3 gives for buckets encrypted with KMS: for tests of clients that
    /// must not take them for one, and for benchmarks, as an MD5 is slower than everything else here.
    #[must_use]
    pub fn opaque_etags(mut self) -> Self {
        self.md5_etags = false;
        self
    }

    /// Speaks TLS, and only that.
    #[must_use]
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How many threads serve; two unless said otherwise.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }
}

impl Default for S3Options {
    fn default() -> Self {
        Self::new()
    }
}

/// Somebody who may sign requests, and what they may do. A new user may do nothing.
#[derive(Clone, Debug)]
pub struct User {
    access_key: String,
    secret_key: String,
    grants: Vec<Grant>,
}

/// What a request needs of the user who signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Read,
    Write,
}

/// A right to the keys of a bucket that begin with a prefix.
#[derive(Clone, Debug)]
struct Grant {
    /// None: every bucket.
    bucket: Option<String>,
    prefix: String,
    write: bool,
}

impl User {
    /// A user who may do nothing yet.
    #[must_use]
    pub fn new(access_key: &str, secret_key: &str) -> Self {
        Self { access_key: access_key.to_owned(), secret_key: secret_key.to_owned(), grants: Vec::new() }
    }

    /// Who also may read and list the keys of `bucket` that begin with `prefix`.
    #[must_use]
    pub fn may_read(self, bucket: &str, prefix: &str) -> Self {
        self.may(Some(bucket), prefix, false)
    }

    /// Who also may read, list, write and delete the keys of `bucket` that begin with `prefix`.
    #[must_use]
    pub fn may_write(self, bucket: &str, prefix: &str) -> Self {
        self.may(Some(bucket), prefix, true)
    }

    /// Who may do everything in every bucket.
    #[must_use]
    pub fn may_do_all(self) -> Self {
        self.may(None, "", true)
    }

    /// The public half of the credentials.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret half of the credentials.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    fn may(mut self, bucket: Option<&str>, prefix: &str, write: bool) -> Self {
        self.grants.push(Grant { bucket: bucket.map(str::to_owned), prefix: prefix.to_owned(), write });
        self
    }

    /// Whether the user may do this to every key of the bucket that begins with `prefix`.
    pub(super) fn may_touch(&self, need: Need, bucket: &str, prefix: &str) -> bool {
        self.grants_of(bucket)
            .any(|grant| (grant.write || need == Need::Read) && prefix.starts_with(&grant.prefix))
    }

    /// Whether the user may do anything in the bucket.
    pub(super) fn may_see(&self, bucket: &str) -> bool {
        self.grants_of(bucket).next().is_some()
    }

    fn grants_of(&self, bucket: &str) -> impl Iterator<Item = &Grant> {
        self.grants.iter().filter(move |grant| grant.bucket.as_deref().is_none_or(|its| its == bucket))
    }
}
