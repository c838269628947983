//! What people type as arguments, understood: `alpha:/data`, `1h`, `tenants`.

use std::time::{Duration, SystemTime};

use crate::resource::{CredentialsSpec, Kind, SlaClass, Time};

/// A path of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TenantPath {
    /// The tenant.
    pub tenant: String,
    /// Its path.
    pub path: String,
}

/// A tenant, and perhaps a path of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Receiver {
    /// The tenant.
    pub tenant: String,
    /// Its path.
    pub path: Option<String>,
}

/// A bucket, and perhaps a prefix in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    /// The bucket.
    pub name: String,
    /// The prefix; empty: none.
    pub prefix: String,
}

/// When a share ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// After this time.
    In(Duration),
    /// At this time.
    At(Time),
}

impl Expiry {
    /// The time, seen from `now`; `None`: it cannot be counted.
    pub(super) fn seen_from(self, now: SystemTime) -> Option<Time> {
        match self {
            Expiry::At(time) => Some(time),
            Expiry::In(duration) => now.checked_add(duration).map(Time::from),
        }
    }
}

/// Parses `tenant:/path`.
pub(super) fn parse_tenant_path(text: &str) -> Result<TenantPath, String> {
    match text.split_once(':') {
        Some((tenant, path)) if !tenant.is_empty() && path.starts_with('/') => {
            Ok(TenantPath { tenant: tenant.to_owned(), path: path.to_owned() })
        }
        _ => Err("write it like alpha:/data/train.csv".to_owned()),
    }
}

pub(super) fn parse_receiver(text: &str) -> Result<Receiver, String> {
    if text.contains(':') {
        let TenantPath { tenant, path } = parse_tenant_path(text)?;
        return Ok(Receiver { tenant, path: Some(path) });
    }
    if text.is_empty() || text.contains('/') {
        return Err("write it like beta or beta:/in/data".to_owned());
    }
    Ok(Receiver { tenant: text.to_owned(), path: None })
}

/// Parses `bucket` or `bucket/some/prefix`.
pub(super) fn parse_bucket(text: &str) -> Result<Bucket, String> {
    let (name, prefix) = text.split_once('/').unwrap_or((text, ""));
    if name.is_empty() || name.contains(':') {
        return Err("write it like data or data/team/vmds".to_owned());
    }
    Ok(Bucket { name: name.to_owned(), prefix: prefix.trim_end_matches('/').to_owned() })
}

/// Parses where credentials are. What is not understood is not repeated: it may be the credentials themselves.
pub(super) fn parse_credentials(text: &str) -> Result<CredentialsSpec, &'static str> {
    match text.split_once(':') {
        None if text == "env" => Ok(CredentialsSpec::Env),
        None if text == "imds" => Ok(CredentialsSpec::Imds),
        Some(("profile", name)) if !name.is_empty() => Ok(CredentialsSpec::Profile(name.to_owned())),
        Some(("file", file)) => {
            let (path, profile) = match file.rsplit_once('#') {
                Some((path, profile)) if !profile.is_empty() => (path, Some(profile.to_owned())),
                _ => (file, None),
            };
            let path = std::path::absolute(path).map_err(|_| "write it like file:/etc/vmds/keys#profile")?;
            Ok(CredentialsSpec::File { path, profile })
        }
        _ => Err("say where they are: env, file:PATH, file:PATH#PROFILE, profile:NAME or imds"),
    }
}

/// Parses permission bits without the special ones.
pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "write it like 644".to_owned())
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|error| format!("write it like 30s, 5m or 1h ({error})"))
}

pub(super) fn parse_expiry(text: &str) -> Result<Expiry, String> {
    if let Ok(time) = Time::parse(text) {
        return Ok(Expiry::At(time));
    }
    let duration = humantime::parse_duration(text);
    duration.map(Expiry::In).map_err(|_| "write it like 1h, 7d or 2031-05-07T12:00:00Z".to_owned())
}

pub(super) fn parse_kind(text: &str) -> Result<Kind, String> {
    Kind::parse(text).ok_or_else(|| {
        let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.info().plural).collect();
        format!("known kinds are {}", known.join(", "))
    })
}

pub(super) fn parse_sla_class(text: &str) -> Result<SlaClass, String> {
    match text {
        "shared" => Ok(SlaClass::Shared),
        "dedicated" => Ok(SlaClass::Dedicated),
        "high-security" | "highSecurity" => Ok(SlaClass::HighSecurity),
        _ => Err("known classes are shared, dedicated and high-security".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_tenants() {
        let path = parse_tenant_path("a:/d:e").unwrap();
        assert_eq!((path.tenant.as_str(), path.path.as_str()), ("a", "/d:e"));
        for bad in ["a", "a:", "a:d", ":/d", "/d"] {
            assert!(parse_tenant_path(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_receiver("b").unwrap().path, None);
        assert_eq!(parse_receiver("b:/in").unwrap().path.as_deref(), Some("/in"));
        for bad in ["", "b/c", "b:c"] {
            assert!(parse_receiver(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn buckets_and_where_credentials_are() {
        let bucket = |name: &str, prefix: &str| Bucket { name: name.to_owned(), prefix: prefix.to_owned() };
        assert_eq!(parse_bucket("data"), Ok(bucket("data", "")));
        assert_eq!(parse_bucket("data/a/b/"), Ok(bucket("data", "a/b")));
        assert!(parse_bucket("/a").is_err() && parse_bucket("s3://data").is_err());
        assert_eq!(parse_credentials("env"), Ok(CredentialsSpec::Env));
        assert_eq!(parse_credentials("profile:p"), Ok(CredentialsSpec::Profile("p".to_owned())));
        let file = |profile: Option<&str>| {
            Ok(CredentialsSpec::File { path: "/k".into(), profile: profile.map(str::to_owned) })
        };
        assert_eq!(parse_credentials("file:/k"), file(None));
        assert_eq!(parse_credentials("file:/k#p"), file(Some("p")));
        for bad in ["", "keys", "file:", "profile:", "AKIA:s3cret"] {
            assert!(!parse_credentials(bad).unwrap_err().contains("s3cret"), "{bad}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse_duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert!(parse_duration("soon").is_err() && parse_expiry("soon").is_err());
        assert_eq!(parse_expiry("1h"), Ok(Expiry::In(Duration::from_secs(3600))));
        let at = Time::parse("2031-05-07T12:00:00Z").unwrap();
        assert_eq!(parse_expiry("2031-05-07T12:00:00Z"), Ok(Expiry::At(at)));
    }

    #[test]
    fn an_expiry_too_far_away_is_no_time() {
        assert_eq!(Expiry::In(Duration::MAX).seen_from(SystemTime::now()), None);
    }
}
