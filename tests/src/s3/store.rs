//! What the server holds: buckets of objects and open uploads. Every condition is decided under the lock under which
//! it is acted upon.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::RwLock;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{Checksum, ETag, ETagCondition, Metadata, PartNumber};
use s3s::{S3Result, s3_error};

use super::content::Content;

/// All buckets. Buckets are made when the server starts, and never later.
pub(super) struct Store {
    buckets: BTreeMap<String, RwLock<Bucket>>,
    /// The smallest part that is not the last of its upload, in bytes.
    pub(super) min_part_size: u64,
    /// Whether an ETag is the MD5 of the bytes, or a serial number.
    md5_etags: bool,
    serial: AtomicU64,
}

/// One bucket. Keys are in the order of their bytes, as S3 lists them.
#[derive(Default)]
pub(super) struct Bucket {
    pub(super) objects: BTreeMap<String, Arc<Object>>,
    /// By key, then by upload: ids grow, so that the uploads of a key are in the order they were begun.
    pub(super) uploads: BTreeMap<(String, String), Upload>,
}

/// An object, never changed after it was stored.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) content: Content,
    pub(super) etag: String,
    pub(super) modified: SystemTime,
    pub(super) about: About,
    pub(super) checksum: Checksum,
}

/// What a client says about an object beside its bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    pub(super) content_type: Option<String>,
    pub(super) metadata: Option<Metadata>,
}

/// A multipart upload that was begun and neither completed nor aborted.
pub(super) struct Upload {
    pub(super) begun: SystemTime,
    pub(super) about: About,
    pub(super) parts: BTreeMap<PartNumber, Part>,
}

/// An uploaded part.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) content: Content,
    pub(super) etag: String,
    pub(super) modified: SystemTime,
}

impl Store {
    pub(super) fn new(
        buckets: impl IntoIterator<Item = String>,
        min_part_size: u64,
        md5_etags: bool,
    ) -> Self {
        let buckets = buckets.into_iter().map(|name| (name, RwLock::default())).collect();
        Self { buckets, min_part_size, md5_etags, serial: AtomicU64::new(1) }
    }

    /// The bucket of this name, or `NoSuchBucket`.
    pub(super) fn bucket(&self, name: &str) -> S3Result<&RwLock<Bucket>> {
        self.buckets.get(name).ok_or_else(|| s3_error!(NoSuchBucket))
    }

    /// The object of this key, or `NoSuchKey`.
    pub(super) fn object(&self, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        self.bucket(bucket)?.read().objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey))
    }

    /// A number never given before, in hexadecimal digits of fixed width.
    pub(super) fn serial(&self) -> String {
        format!("{:032x}", self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// The ETag of what was sent in one piece.
    pub(super) fn etag(&self, content: &Content) -> String {
        if !self.md5_etags {
            return self.serial();
        }
        let mut hash = Md5::new();
        content.segments().for_each(|bytes| hash.update(bytes));
        hex(&hash.finalize())
    }

    /// The ETag of what was put together of parts: as S3's, the MD5 of the MD5s and the number of parts.
    pub(super) fn etag_of_parts(&self, etags: &[&str]) -> String {
        if !self.md5_etags {
            return format!("{}-{}", self.serial(), etags.len());
        }
        let digests: Vec<u8> = etags.iter().flat_map(|etag| unhex(etag)).collect();
        format!("{}-{}", hex(&Md5::checksum(&digests)), etags.len())
    }

    /// Puts an object under a key if the conditions hold for what is there now.
    pub(super) fn put(&self, bucket: &str, key: &str, object: Object, only: &WriteOnlyIf) -> S3Result<()> {
        let mut bucket = self.bucket(bucket)?.write();
        only.check(bucket.objects.get(key).map(|object| object.etag.as_str()))?;
        bucket.objects.insert(key.to_owned(), Arc::new(object));
        Ok(())
    }
}

/// The conditions of a write.
pub(super) struct WriteOnlyIf {
    pub(super) matches: Option<ETagCondition>,
    pub(super) none_matches: Option<ETagCondition>,
}

impl WriteOnlyIf {
    /// Whether a write may replace what has the ETag `current`.
    ///
    /// # Errors
    /// `PreconditionFailed`; `NoSuchKey` where If-Match meets nothing; `NotImplemented` for If-None-Match with
    /// anything but `*`, as in S3.
    pub(super) fn check(&self, current: Option<&str>) -> S3Result<()> {
        match (&self.none_matches, current) {
            (Some(ETagCondition::ETag(_)), _) => return Err(s3_error!(NotImplemented)),
            (Some(ETagCondition::Any), Some(_)) => return Err(s3_error!(PreconditionFailed)),
            _ => {}
        }
        match (&self.matches, current) {
            (Some(_), None) => Err(s3_error!(NoSuchKey)),
            (Some(wanted), Some(current)) if !wanted.allows(current) => Err(s3_error!(PreconditionFailed)),
            _ => Ok(()),
        }
    }
}

/// Comparing a condition with an ETag.
pub(super) trait Allows {
    /// Whether the condition is `*` or names this ETag.
    fn allows(&self, etag: &str) -> bool;
}

impl Allows for ETagCondition {
    fn allows(&self, etag: &str) -> bool {
        self.as_etag().is_none_or(|wanted| wanted.value() == etag)
    }
}

/// The form of an ETag in an answer.
pub(super) fn strong(etag: &str) -> ETag {
    ETag::Strong(etag.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits that this module wrote.
fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
