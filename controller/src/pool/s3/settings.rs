//! What an S3 pool is opened with, and the address of its endpoint.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

use super::S3Error;
use crate::pool::cache::CacheSettings;
use crate::resource::{CredentialsSpec, S3Spec};

/// The region of an endpoint that was named without one; such endpoints seldom care.
const DEFAULT_REGION: &str = "us-east-1";
/// For how long addresses lead to their objects, unless told otherwise, in seconds.
const DEFAULT_LEASE: u32 = 60;

/// What an S3 pool is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// What all keys of the pool begin with: empty, or names with a '/' after each.
    pub prefix: String,
    /// The region that requests are signed for.
    pub region: String,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Where the credentials come from.
    pub credentials: CredentialsSpec,
    /// The local directory for files that are being written.
    pub staging: PathBuf,
    /// Certificates (PEM) that sign the endpoint's; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// For how long an address that is given out leads to its object.
    pub lease: Duration,
    /// What was read is kept there; `None`: nowhere.
    pub cache: Option<CacheSettings>,
    /// How long one request may take, beside the time its bytes need.
    pub patience: Duration,
}

impl S3Settings {
    /// The settings for a resource. `staging` is used where the resource names none.
    ///
    /// # Errors
    /// [`S3Error::Invalid`]: the endpoint is not an address.
    pub fn new(spec: &S3Spec, staging: PathBuf, patience: Duration) -> Result<Self, S3Error> {
        let prefix = spec.prefix.trim_matches('/');
        let region = spec.region.clone().unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let url = spec.endpoint.clone().unwrap_or_else(|| format!("https://s3.{region}.{suffix}"));
        Ok(Self {
            bucket: spec.bucket.clone(),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            endpoint: Endpoint::new(&url, &spec.bucket, spec.path_style)?,
            region,
            credentials: spec.credentials.clone(),
            staging: spec.staging.clone().unwrap_or(staging),
            ca_file: spec.ca_file.clone(),
            lease: Duration::from_secs(spec.lease_seconds.unwrap_or(DEFAULT_LEASE).into()),
            cache: spec
                .disk_cache
                .as_ref()
                .map(|cache| CacheSettings { directory: cache.directory.clone(), bytes: cache.bytes.0 }),
            patience,
        })
    }

    /// An object as it is named when a part of another one is copied from it.
    pub(super) fn copy_source(&self, key: &str) -> String {
        format!("{}/{}", self.bucket, encoded(&self.full_key(key)))
    }

    /// The bucket's name for a key of the pool; of one that begins with '/', what follows.
    pub fn full_key(&self, key: &str) -> String {
        match key.strip_prefix('/') {
            Some(whole) => whole.to_owned(),
            None => format!("{}{key}", self.prefix),
        }
    }
}

/// Where the objects of a pool are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The value of the `Host` header: the host, and the port unless it is the usual one.
    pub host: String,
    /// The host to connect to: a name or an address (without brackets).
    pub name: String,
    /// The port to connect to.
    pub port: u16,
    /// The bucket is in the path, not in the host's name.
    pub path_style: bool,
    /// The address as it was given, without a '/' at the end.
    pub url: String,
    /// What the path of every object begins with.
    pub(super) base_path: String,
}

impl Endpoint {
    fn new(url: &str, bucket: &str, path_style: bool) -> Result<Self, S3Error> {
        let not_one = || S3Error::Invalid(format!("'{url}' is not the address of an endpoint"));
        let uri: Uri = url.parse().map_err(|_| not_one())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(not_one());
        };
        let tls = scheme == "https";
        let usual = if tls { 443 } else { 80 };
        let port = authority.port_u16().unwrap_or(usual);
        let named = authority.host();
        let address = named.trim_start_matches('[').trim_end_matches(']');
        // No name below an address; and no certificate covers a name with more dots in it.
        let path_style = path_style || address.parse::<std::net::IpAddr>().is_ok() || bucket.contains('.');
        let below = |host: &str| if path_style { host.to_owned() } else { format!("{bucket}.{host}") };
        let shown = if port == usual { String::new() } else { format!(":{port}") };
        Ok(Self {
            tls,
            host: below(named) + &shown,
            name: below(address),
            port,
            path_style,
            url: format!("{scheme}://{named}{shown}"),
            base_path: if path_style { format!("/{bucket}/") } else { "/".to_owned() },
        })
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// The path of an object, as it is sent and signed.
    pub(super) fn path(&self, full_key: &str) -> String {
        self.base_path.clone() + &encoded(full_key)
    }
}

/// A key as it stands in addresses.
fn encoded(full_key: &str) -> String {
    let mut path = String::with_capacity(full_key.len());
    for byte in full_key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                path.push(char::from(byte));
            }
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str, path_style: bool) -> Endpoint {
        Endpoint::new(url, "data", path_style).unwrap()
    }

    #[test]
    fn the_bucket_is_in_the_name_or_in_the_path() {
        let amazon = endpoint("https://s3.eu-west-1.amazonaws.com", false);
        assert_eq!((amazon.host.as_str(), amazon.port), ("data.s3.eu-west-1.amazonaws.com", 443));
        assert_eq!(amazon.path("a/b c"), "/a/b%20c");
        let local = endpoint("http://store:9000/", true);
        assert_eq!((local.host.as_str(), local.name.as_str(), local.port), ("store:9000", "store", 9000));
        assert_eq!((local.path("k").as_str(), local.url.as_str()), ("/data/k", "http://store:9000"));
        let address = endpoint("http://[::1]:9000", false);
        assert_eq!((address.host.as_str(), address.name.as_str()), ("[::1]:9000", "::1"));
        assert!(address.path_style, "there are no names below an address");
        assert!(Endpoint::new("https://host", "with.dots", false).unwrap().path_style);
        assert!(Endpoint::new("no address", "data", false).is_err());
    }
}
