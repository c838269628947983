//! Signed addresses: whoever has one may read one object for a short time, and nothing else.

use std::fmt;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use hyper::{Request, Uri};

use super::{S3Error, S3Pool, S3Settings};

/// Longest life of a signed address; endpoints refuse more.
const VALID_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A signed address for one GET. Its `Debug` does not show the signature.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedGet {
    /// What stands in the request line.
    pub path_and_query: String,
    /// Headers that are signed and must be sent as they are, beside `Host`.
    pub headers: Vec<(String, String)>,
    /// From this time on the endpoint refuses it.
    pub expires: SystemTime,
}

impl fmt::Debug for SignedGet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path_and_query.split('?').next();
        f.debug_struct("SignedGet")
            .field("path", &path)
            .field("headers", &self.headers)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl S3Pool {
    /// Signs an address to read an object with. `range` (bytes of the object): only these; `None`: whatever the request
    /// says in its own `Range`.
    ///
    /// # Errors
    /// [`S3Error::Credentials`]: there are none. [`S3Error::Invalid`]: the range is empty.
    pub async fn sign_get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        valid: Duration,
    ) -> Result<SignedGet, S3Error> {
        self.sign(key, None, range, valid).await
    }

    /// The same for an object as it is under `etag` (see [`Stored::etag`](super::Stored)); any other is refused.
    ///
    /// # Errors
    /// See [`S3Pool::sign_get`].
    pub async fn sign_get_matching(
        &self,
        key: &str,
        etag: &str,
        range: Option<Range<u64>>,
        valid: Duration,
    ) -> Result<SignedGet, S3Error> {
        self.sign(key, Some(etag), range, valid).await
    }

    async fn sign(
        &self,
        key: &str,
        etag: Option<&str>,
        range: Option<Range<u64>>,
        valid: Duration,
    ) -> Result<SignedGet, S3Error> {
        let mut headers = Vec::new();
        if let Some(range) = range {
            headers.push(("range".to_owned(), range_header(&range)?));
        }
        if let Some(etag) = etag {
            headers.push(("if-match".to_owned(), etag.to_owned()));
        }
        let credentials = self.keyring.current().await?;
        signed_get(&self.settings, credentials, key, headers, SystemTime::now(), valid)
    }
}

/// The value of a `Range` header.
pub(super) fn range_header(range: &Range<u64>) -> Result<String, S3Error> {
    if range.is_empty() {
        return Err(S3Error::Invalid("an empty range cannot be read".to_owned()));
    }
    Ok(format!("bytes={}-{}", range.start, range.end - 1))
}

/// Signs a GET as of `now`. Credentials that end sooner than `valid` end the address as well.
pub(super) fn signed_get(
    settings: &S3Settings,
    credentials: Credentials,
    key: &str,
    headers: Vec<(String, String)>,
    now: SystemTime,
    valid: Duration,
) -> Result<SignedGet, S3Error> {
    let refused = || S3Error::Invalid("the address cannot be signed".to_owned());
    let valid = Duration::from_secs(valid.min(VALID_MAX).as_secs().max(1));
    let expires = whole_second(now) + valid;
    let expires = credentials.expiry().map_or(expires, |end| end.min(expires));
    let endpoint = &settings.endpoint;
    let path = endpoint.path(&settings.full_key(key));
    let url = format!("{}://{}{path}", endpoint.scheme(), endpoint.host);
    let mut how = SigningSettings::default();
    how.signature_location = SignatureLocation::QueryParams;
    how.expires_in = Some(valid);
    how.percent_encoding_mode = PercentEncodingMode::Single;
    how.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let identity = credentials.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&settings.region)
        .name("s3")
        .time(now)
        .settings(how)
        .build()
        .map_err(|_| refused())?
        .into();
    let named = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let request = SignableRequest::new("GET", url.as_str(), named, SignableBody::UnsignedPayload);
    let (instructions, _) =
        sign(request.map_err(|_| refused())?, &params).map_err(|_| refused())?.into_parts();
    let mut signed = Request::new(());
    *signed.uri_mut() = url.parse::<Uri>().map_err(|_| refused())?;
    instructions.apply_to_request_http1x(&mut signed);
    let path_and_query = signed.uri().path_and_query().ok_or_else(refused)?.to_string();
    Ok(SignedGet { path_and_query, headers, expires })
}

/// The time as it stands in an address: the second that has begun.
fn whole_second(time: SystemTime) -> SystemTime {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{CredentialsSpec, S3Spec};

    fn settings() -> S3Settings {
        let spec = S3Spec {
            bucket: "examplebucket".to_owned(),
            prefix: String::new(),
            endpoint: Some("https://s3.amazonaws.com".to_owned()),
            region: None,
            path_style: false,
            credentials: CredentialsSpec::Env,
            staging: None,
            ca_file: None,
            lease_seconds: None,
            disk_cache: None,
        };
        S3Settings::new(&spec, "/staging".into(), Duration::from_secs(30)).unwrap()
    }

    fn credentials(token: Option<&str>) -> Credentials {
        let (id, secret) = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        Credentials::new(id, secret, token.map(str::to_owned), None, "test")
    }

    /// 2013-05-24T00:00:00Z
    fn then() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600)
    }

    /// The example of "Authenticating Requests: Using Query Parameters" in the documentation of Amazon S3.
    #[test]
    fn the_documented_example_has_the_documented_signature() {
        let day = Duration::from_secs(86_400);
        let signed = signed_get(&settings(), credentials(None), "test.txt", Vec::new(), then(), day).unwrap();
        let expected = "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert!(signed.path_and_query.starts_with("/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"));
        assert!(signed.path_and_query.contains(expected), "{}", signed.path_and_query);
        assert_eq!((signed.expires, signed.headers), (then() + day, Vec::new()));
    }

    #[test]
    fn a_range_is_signed_and_a_token_is_sent_and_nothing_of_it_is_shown() {
        let headers = vec![("range".to_owned(), range_header(&(10..20)).unwrap())];
        let minute = Duration::from_secs(60);
        let signed =
            signed_get(&settings(), credentials(Some("t/k")), "a b", headers, then(), minute).unwrap();
        assert!(signed.path_and_query.starts_with("/a%20b?"));
        assert!(signed.path_and_query.contains("X-Amz-SignedHeaders=host%3Brange"));
        assert!(signed.path_and_query.contains("X-Amz-Security-Token=t%2Fk"));
        assert_eq!(signed.headers[0].1, "bytes=10-19");
        let shown = format!("{signed:?}");
        assert!(!shown.contains("Signature") && !shown.contains("t%2Fk"), "{shown}");
        assert!(range_header(&(5..5)).is_err());
    }

    #[test]
    fn an_address_ends_when_the_endpoint_says_and_the_endpoint_knows_seconds_only() {
        let (late, valid) = (then() + Duration::from_millis(900), Duration::from_secs(2));
        let signed = signed_get(&settings(), credentials(None), "k", Vec::new(), late, valid).unwrap();
        assert_eq!(signed.expires, then() + valid);
    }

    #[test]
    fn an_address_ends_with_its_credentials() {
        let ends = then() + Duration::from_secs(10);
        let mut short = credentials(None);
        *short.expiry_mut() = Some(ends);
        let signed =
            signed_get(&settings(), short, "k", Vec::new(), then(), Duration::from_secs(60)).unwrap();
        assert_eq!(signed.expires, ends);
    }
}
