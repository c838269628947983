//! What is wanted of an `s3` pool, and what is found out about it.

use std::path::{Path, PathBuf};

use hyper::Uri;
use serde::{Deserialize, Serialize};

use super::is_plain_absolute;
use crate::resource::{ByteSize, Problem, human_bytes};

/// Longest prefix, in bytes: keys have 1024, and what the map appends is short.
const PREFIX_MAX: usize = 512;

/// A bucket, or what is below a prefix of one. Nothing here is secret: credentials are named, not given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Spec {
    /// The bucket; it must exist.
    pub bucket: String,
    /// Names with '/' between them that all keys begin with; empty: the whole bucket is the pool.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// `http://` or `https://` and a host; absent: Amazon's for the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What requests are signed for; needed where there is no endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The bucket is in the path and not in the host's name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub path_style: bool,
    /// Where the controller finds the credentials.
    pub credentials: CredentialsSpec,
    /// A local directory for files that are being written; absent: one below the controller's state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging: Option<PathBuf>,
    /// A file with the certificates (PEM) that sign the endpoint's; absent: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// For how long, in seconds, an address leads to an object; absent: a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u32>,
    /// What was read is kept on a disk of this machine; absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_cache: Option<DiskCacheSpec>,
}

/// Where what was read from a bucket is kept, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiskCacheSpec {
    /// A directory on a local disk, for this cache alone; it is made if it is missing.
    pub directory: PathBuf,
    /// What the objects in it may take together. What was used least recently goes.
    pub bytes: ByteSize,
}

/// What a disk cache holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskCacheStatus {
    /// Bytes of objects in it, when last looked at.
    pub bytes_used: u64,
    /// What they may be.
    pub bytes_max: u64,
    /// Objects of which something is in it.
    pub objects: u64,
    /// Why nothing is kept: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Least bound of a disk cache: a few chunks.
const DISK_CACHE_MIN: u64 = 16 << 20;

impl DiskCacheSpec {
    fn check(&self, staging: Option<&Path>) -> Vec<Problem> {
        let field = "spec.s3.diskCache.directory";
        let path = &self.directory;
        let mut problems = Vec::new();
        if !is_plain_absolute(path) || path == Path::new("/") {
            problems.push(Problem::new(field, "give a full path, not '/' and without '..'"));
        }
        if staging.is_some_and(|staging| staging.starts_with(path) || path.starts_with(staging)) {
            let sentence = "the staging directory holds what nobody else has, a cache what may go; give another directory";
            problems.push(Problem::new(field, sentence));
        }
        if self.bytes.0 < DISK_CACHE_MIN {
            let sentence = format!(
                "a disk cache has at least {}; leave the field out for none",
                human_bytes(DISK_CACHE_MIN)
            );
            problems.push(Problem::new("spec.s3.diskCache.bytes", sentence));
        }
        problems
    }
}

/// Longest life of an address that can be asked for, in seconds.
const LEASE_SECONDS_MAX: u32 = 3600;

/// What is wrong with the life of addresses that was asked for.
pub(in crate::resource) fn check_lease_seconds(field: &str, seconds: Option<u32>) -> Option<Problem> {
    let wrong = seconds.is_some_and(|seconds| !(1..=LEASE_SECONDS_MAX).contains(&seconds));
    wrong.then(|| Problem::new(field, format!("a lease lasts 1 to {LEASE_SECONDS_MAX} seconds")))
}

/// Where the controller finds credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "GivenCredentials", into = "GivenCredentials")]
pub enum CredentialsSpec {
    /// In its environment: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and perhaps `AWS_SESSION_TOKEN`.
    Env,
    /// In a file as the AWS tools write it, closed to everybody else.
    File {
        /// The file.
        path: PathBuf,
        /// The profile in it; `None`: `default`.
        profile: Option<String>,
    },
    /// In the file of the user the controller runs as, under this profile.
    Profile(String),
    /// At the metadata service of the machine, whose role is used.
    Imds,
}

/// Credentials as they are written.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GivenCredentials {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    env: Option<Nothing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    imds: Option<Nothing>,
}

/// `{}`
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl TryFrom<GivenCredentials> for CredentialsSpec {
    type Error = &'static str;

    fn try_from(given: GivenCredentials) -> Result<Self, Self::Error> {
        match (given.env, given.file, given.profile, given.imds) {
            (Some(_), None, None, None) => Ok(Self::Env),
            (None, Some(path), profile, None) => Ok(Self::File { path, profile }),
            (None, None, Some(profile), None) => Ok(Self::Profile(profile)),
            (None, None, None, Some(_)) => Ok(Self::Imds),
            _ => Err("say one of env: {}, file: PATH (and perhaps profile: NAME), profile: NAME, imds: {}"),
        }
    }
}

impl From<CredentialsSpec> for GivenCredentials {
    fn from(spec: CredentialsSpec) -> Self {
        let none = Self::default();
        match spec {
            CredentialsSpec::Env => Self { env: Some(Nothing {}), ..none },
            CredentialsSpec::File { path, profile } => Self { file: Some(path), profile, ..none },
            CredentialsSpec::Profile(profile) => Self { profile: Some(profile), ..none },
            CredentialsSpec::Imds => Self { imds: Some(Nothing {}), ..none },
        }
    }
}

/// What was found out about an endpoint and a bucket by trying.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Capabilities {
    /// `If-None-Match: *` keeps an object from being replaced.
    pub conditional_put: bool,
    /// `If-Match` keeps another object from being read.
    pub conditional_get: bool,
    /// How ETags are written in conditions.
    pub etags: EtagForm,
    /// Parts of new objects can be copied from others.
    pub multipart_copy: bool,
    /// Checksums that come with an object are checked.
    pub checksums: bool,
    /// What becomes of objects that are deleted.
    pub versioning: Versioning,
    /// By how much the endpoint's clock is ahead of this host's.
    pub clock_skew_seconds: i64,
    /// What the operator should know: one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How ETags are written in conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EtagForm {
    /// In quotes, as they should be.
    #[default]
    Quoted,
    /// Without: in quotes they match nothing.
    Unquoted,
}

/// Whether a bucket keeps what is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Versioning {
    /// Nothing is kept.
    Off,
    /// Everything is kept.
    On,
    /// What was deleted before is kept.
    Suspended,
    /// The endpoint does not say.
    #[default]
    Unknown,
}

impl S3Spec {
    /// The bucket and prefix as people write them.
    pub fn url(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("s3://{}{slash}{}", self.bucket, self.prefix)
    }

    /// What is wrong with it, and with replacing `old` by it.
    pub(super) fn check(&self, old: Option<&S3Spec>) -> Vec<Problem> {
        let wrong = |is_wrong: bool, field: &str, sentence: &str| {
            is_wrong.then(|| Problem::new(&format!("spec.s3.{field}"), sentence))
        };
        let paths = [("staging", self.staging.as_deref()), ("caFile", self.ca_file.as_deref())];
        let file = match &self.credentials {
            CredentialsSpec::File { path, .. } => Some(path.as_path()),
            _ => None,
        };
        let bad_path =
            |path: Option<&Path>| path.is_some_and(|p| !is_plain_absolute(p) || p == Path::new("/"));
        let path_wrong = "give a full path, not '/' and without '..'";
        let moved = old.is_some_and(|old| self.place() != old.place());
        [
            wrong(
                !is_bucket(&self.bucket),
                "bucket",
                "a bucket has 3 to 63 lower-case letters, digits, '.' and '-', and is not an address",
            ),
            wrong(
                !is_prefix(&self.prefix),
                "prefix",
                "write it like team/vmds: letters, digits and !-_.*'() with single '/' between, not at the ends, no '..'",
            ),
            wrong(
                self.endpoint.as_deref().is_some_and(|url| !is_endpoint(url)),
                "endpoint",
                "write it like https://s3.example.com:9000: no user, no path",
            ),
            wrong(
                self.endpoint.is_none() && self.region.is_none(),
                "region",
                "say the region, or the endpoint if it is not Amazon's",
            ),
            wrong(
                self.region.as_deref().is_some_and(|region| !is_region(region)),
                "region",
                "a region has lower-case letters, digits and '-'",
            ),
            wrong(bad_path(file), "credentials.file", path_wrong),
            wrong(
                moved,
                "bucket",
                "bucket, prefix, endpoint and staging of a pool cannot be changed, files would be lost; add another pool",
            ),
        ]
        .into_iter()
        .chain(paths.map(|(field, path)| wrong(bad_path(path), field, path_wrong)))
        .chain([check_lease_seconds("spec.s3.leaseSeconds", self.lease_seconds)])
        .flatten()
        .chain(self.disk_cache.iter().flat_map(|cache| cache.check(self.staging.as_deref())))
        .collect()
    }

    /// What says where the bytes are.
    fn place(&self) -> (&str, &str, Option<&str>, Option<&Path>) {
        (&self.bucket, &self.prefix, self.endpoint.as_deref(), self.staging.as_deref())
    }
}

fn is_bucket(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-';
    let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.chars().all(inner)
        && name.starts_with(outer)
        && name.ends_with(outer)
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err()
}

fn is_prefix(prefix: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()".contains(c);
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(good);
    prefix.is_empty() || (prefix.len() <= PREFIX_MAX && prefix.split('/').all(part))
}

fn is_endpoint(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !url.contains('#');
    let host = uri.authority().is_some_and(|a| !a.as_str().contains('@') && !a.host().is_empty());
    matches!(uri.scheme_str(), Some("http" | "https")) && bare && host
}

fn is_region(region: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&region.len()) && region.chars().all(good)
}
