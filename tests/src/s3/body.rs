//! The body of a request: read as a whole, and held against the digests that came with it.

use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::{HeaderMap, StatusCode};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{Checksum, StreamingBlob};
use s3s::stream::ByteStream;
use s3s::{Body, S3Error, S3ErrorCode, S3Result, StdError, TrailingHeaders, s3_error};

/// The largest body of one PUT, in bytes: what S3 allows.
const MAX_PUT: usize = 5 << 30;

/// Reads a body to its end. Nothing of a body that breaks off or has another hash than the signed one is kept.
pub(super) async fn read(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(blob) = body else { return Ok(Bytes::new()) };
    let expected = blob.remaining_length().exact().unwrap_or(0);
    if expected > MAX_PUT {
        return Err(s3_error!(EntityTooLarge));
    }
    let mut bytes = Vec::with_capacity(expected);
    let mut body = Body::from(blob);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(refused)?.into_data() {
            if bytes.len() + data.len() > MAX_PUT {
                return Err(s3_error!(EntityTooLarge));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.into())
}

/// Why a body could not be read. `s3s` keeps its error types of this place to itself, so that only their text tells
/// a wrong hash from a connection that broke.
fn refused(error: StdError) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        let code = S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into());
        let mut error = S3Error::new(code);
        error.set_status_code(StatusCode::BAD_REQUEST);
        error
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch)
    } else {
        S3Error::with_message(S3ErrorCode::IncompleteBody, text)
    }
}

/// The digests a client claims its body has. `Content-MD5` and the checksums are in Base64.
#[derive(Default)]
pub(super) struct Claims {
    pub(super) md5: Option<String>,
    pub(super) checksum: Checksum,
    pub(super) trailers: Option<TrailingHeaders>,
}

impl Claims {
    /// Holds the bytes against the claims and gives the checksums to store.
    ///
    /// # Errors
    /// `BadDigest`, as S3 answers it, for whichever digest is another.
    pub(super) fn check(mut self, bytes: &[u8]) -> S3Result<Checksum> {
        if let Some(claimed) = self.md5
            && claimed != base64_simd::STANDARD.encode_to_string(Md5::checksum(bytes))
        {
            return Err(s3_error!(BadDigest, "the MD5 is another"));
        }
        if let Some(headers) = self.trailers.and_then(|trailers| trailers.take()) {
            merge(&mut self.checksum, &headers);
        }
        let claimed = self.checksum;
        let mut hasher = ChecksumHasher {
            crc32: claimed.checksum_crc32.is_some().then(Default::default),
            crc32c: claimed.checksum_crc32c.is_some().then(Default::default),
            sha1: claimed.checksum_sha1.is_some().then(Default::default),
            sha256: claimed.checksum_sha256.is_some().then(Default::default),
            crc64nvme: claimed.checksum_crc64nvme.is_some().then(Default::default),
        };
        hasher.update(bytes);
        let found = hasher.finalize();
        if found != claimed {
            return Err(s3_error!(BadDigest, "a checksum is another"));
        }
        Ok(found)
    }
}

/// Takes the checksums that came after the body.
fn merge(checksum: &mut Checksum, trailers: &HeaderMap) {
    let take = |name| trailers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    checksum.checksum_crc32 = take("x-amz-checksum-crc32").or(checksum.checksum_crc32.take());
    checksum.checksum_crc32c = take("x-amz-checksum-crc32c").or(checksum.checksum_crc32c.take());
    checksum.checksum_sha1 = take("x-amz-checksum-sha1").or(checksum.checksum_sha1.take());
    checksum.checksum_sha256 = take("x-amz-checksum-sha256").or(checksum.checksum_sha256.take());
    checksum.checksum_crc64nvme = take("x-amz-checksum-crc64nvme").or(checksum.checksum_crc64nvme.take());
}
