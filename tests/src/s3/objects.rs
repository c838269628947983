//! Objects: GET and HEAD with ranges and conditions, PUT with conditions, DELETE of one and of many.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use s3s::auth::Credentials;
use s3s::dto::{
    self, Checksum, ChecksumMode, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput,
    HeadObjectOutput, PutObjectInput, PutObjectOutput,
};
use s3s::{S3Result, TrailingHeaders, s3_error};

use super::body::{self, Claims};
use super::content::Content;
use super::options::Need;
use super::service::Service;
use super::store::{About, Allows, Object, WriteOnlyIf, strong};

/// The most keys of one DeleteObjects.
const MAX_DELETES: usize = 1000;

/// What a GET or a HEAD reads of an object.
struct Reading {
    object: Arc<Object>,
    bytes: Range<u64>,
    /// The `Content-Range` of the answer; none for a whole object.
    content_range: Option<String>,
    /// Given only when asked for, and only for whole objects, of which they are the checksums.
    checksum: Checksum,
}

impl Service {
    /// GetObject.
    pub(super) fn get(&self, input: GetObjectInput) -> S3Result<GetObjectOutput> {
        let refused = input.version_id.is_some()
            || input.part_number.is_some()
            || input.if_modified_since.is_some()
            || input.if_unmodified_since.is_some();
        if refused {
            return Err(s3_error!(NotImplemented));
        }
        let object = self.store.object(&input.bucket, &input.key)?;
        let conditions = (input.if_match, input.if_none_match);
        let Reading { object, bytes, content_range, checksum } =
            read(object, conditions, input.range, input.checksum_mode.as_ref())?;
        Ok(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some((bytes.end - bytes.start).cast_signed()),
            body: Some(object.content.slice(bytes).into_body().into()),
            content_range,
            content_type: object.about.content_type.clone(),
            metadata: object.about.metadata.clone(),
            e_tag: Some(strong(&object.etag)),
            last_modified: Some(object.modified.into()),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            ..GetObjectOutput::default()
        })
    }

    /// HeadObject.
    pub(super) fn head(&self, input: HeadObjectInput) -> S3Result<HeadObjectOutput> {
        let refused = input.version_id.is_some()
            || input.part_number.is_some()
            || input.if_modified_since.is_some()
            || input.if_unmodified_since.is_some();
        if refused {
            return Err(s3_error!(NotImplemented));
        }
        let object = self.store.object(&input.bucket, &input.key)?;
        let conditions = (input.if_match, input.if_none_match);
        let Reading { object, bytes, content_range, checksum } =
            read(object, conditions, input.range, input.checksum_mode.as_ref())?;
        Ok(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some((bytes.end - bytes.start).cast_signed()),
            content_range,
            content_type: object.about.content_type.clone(),
            metadata: object.about.metadata.clone(),
            e_tag: Some(strong(&object.etag)),
            last_modified: Some(object.modified.into()),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            ..HeadObjectOutput::default()
        })
    }

    /// PutObject. The conditions are decided when all bytes are there, so that of two racing writers one wins.
    pub(super) async fn put(
        &self,
        input: PutObjectInput,
        trailers: Option<TrailingHeaders>,
    ) -> S3Result<PutObjectOutput> {
        self.store.bucket(&input.bucket)?;
        if input.write_offset_bytes.is_some() {
            return Err(s3_error!(NotImplemented));
        }
        let bytes = body::read(input.body).await?;
        let checksum = Checksum {
            checksum_crc32: input.checksum_crc32,
            checksum_crc32c: input.checksum_crc32c,
            checksum_crc64nvme: input.checksum_crc64nvme,
            checksum_sha1: input.checksum_sha1,
            checksum_sha256: input.checksum_sha256,
            ..Checksum::default()
        };
        let checksum = Claims { md5: input.content_md5, checksum, trailers }.check(&bytes)?;
        let content = Content::from(bytes);
        let etag = self.store.etag(&content);
        let about = About { content_type: input.content_type, metadata: input.metadata };
        let object = Object {
            content,
            etag: etag.clone(),
            modified: SystemTime::now(),
            about,
            checksum: checksum.clone(),
        };
        let only = WriteOnlyIf { matches: input.if_match, none_matches: input.if_none_match };
        self.store.put(&input.bucket, &input.key, object, &only)?;
        Ok(PutObjectOutput {
            e_tag: Some(strong(&etag)),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            ..PutObjectOutput::default()
        })
    }

    /// DeleteObject. What is not there is deleted too.
    pub(super) fn delete(&self, input: DeleteObjectInput) -> S3Result<DeleteObjectOutput> {
        let refused = input.version_id.is_some()
            || input.if_match_last_modified_time.is_some()
            || input.if_match_size.is_some();
        if refused {
            return Err(s3_error!(NotImplemented));
        }
        let mut bucket = self.store.bucket(&input.bucket)?.write();
        let only = WriteOnlyIf { matches: input.if_match, none_matches: None };
        only.check(bucket.objects.get(&input.key).map(|object| object.etag.as_str()))?;
        bucket.objects.remove(&input.key);
        Ok(DeleteObjectOutput::default())
    }

    /// DeleteObjects. Each key stands for itself: those the user may not delete come back as errors.
    pub(super) fn delete_many(
        &self,
        input: DeleteObjectsInput,
        signed_by: Option<&Credentials>,
    ) -> S3Result<DeleteObjectsOutput> {
        let wanted = input.delete.objects;
        if wanted.is_empty() || wanted.len() > MAX_DELETES {
            return Err(s3_error!(MalformedXML));
        }
        if wanted.iter().any(|object| object.version_id.is_some() || object.e_tag.is_some()) {
            return Err(s3_error!(NotImplemented));
        }
        let mut bucket = self.store.bucket(&input.bucket)?.write();
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for object in wanted {
            match self.users.check(signed_by, Need::Write, &input.bucket, &object.key) {
                Ok(()) => {
                    bucket.objects.remove(&object.key);
                    deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() });
                }
                Err(refused) => errors.push(dto::Error {
                    code: Some(refused.code().as_str().to_owned()),
                    key: Some(object.key),
                    ..dto::Error::default()
                }),
            }
        }
        if input.delete.quiet == Some(true) {
            deleted.clear();
        }
        Ok(DeleteObjectsOutput {
            deleted: Some(deleted),
            errors: Some(errors),
            ..DeleteObjectsOutput::default()
        })
    }
}

/// What to read of an object: a range that reaches beyond the end is cut there, one that begins there is refused.
fn read(
    object: Arc<Object>,
    (matches, none_matches): (Option<ETagCondition>, Option<ETagCondition>),
    range: Option<dto::Range>,
    checksums: Option<&ChecksumMode>,
) -> S3Result<Reading> {
    if matches.is_some_and(|wanted| !wanted.allows(&object.etag)) {
        return Err(s3_error!(PreconditionFailed));
    }
    if none_matches.is_some_and(|known| known.allows(&object.etag)) {
        return Err(s3_error!(NotModified));
    }
    let length = object.content.length();
    let Some(range) = range else {
        let asked = checksums.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
        let checksum = if asked { object.checksum.clone() } else { Checksum::default() };
        return Ok(Reading { object, bytes: 0..length, content_range: None, checksum });
    };
    let bytes = range.check(length)?;
    // The last bytes of nothing are nothing, which `check` lets pass; S3 has no such range.
    if bytes.is_empty() {
        return Err(s3_error!(InvalidRange));
    }
    let content_range = Some(format!("bytes {}-{}/{length}", bytes.start, bytes.end - 1));
    Ok(Reading { object, bytes, content_range, checksum: Checksum::default() })
}
