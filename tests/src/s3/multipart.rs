//! Multipart uploads: begun, filled with parts sent or copied, completed or aborted, and listed.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::SystemTime;

use s3s::dto::{
    self, AbortMultipartUploadInput, AbortMultipartUploadOutput, Checksum, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CompletedPart, CopyPartResult, CopySource, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput,
    ListPartsOutput, MultipartUpload, PartNumber, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput,
    UploadPartOutput,
};
use s3s::{S3Result, TrailingHeaders, s3_error};

use super::body::{self, Claims};
use super::content::Content;
use super::listing::most;
use super::service::Service;
use super::store::{About, Allows, Object, Part, Store, Upload, WriteOnlyIf, strong};

/// The highest number of a part.
const MAX_PART: PartNumber = 10_000;

impl Service {
    /// CreateMultipartUpload.
    pub(super) fn create_upload(
        &self,
        input: CreateMultipartUploadInput,
    ) -> S3Result<CreateMultipartUploadOutput> {
        let id = self.store.serial();
        let about = About { content_type: input.content_type, metadata: input.metadata };
        let upload = Upload { begun: SystemTime::now(), about, parts: BTreeMap::new() };
        let mut bucket = self.store.bucket(&input.bucket)?.write();
        bucket.uploads.insert((input.key.clone(), id.clone()), upload);
        Ok(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        })
    }

    /// UploadPart.
    pub(super) async fn put_part(
        &self,
        input: UploadPartInput,
        trailers: Option<TrailingHeaders>,
    ) -> S3Result<UploadPartOutput> {
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
        let part = new_part(&self.store, bytes.into());
        let etag = part.etag.clone();
        add_part(&self.store, &input.bucket, (input.key, input.upload_id), input.part_number, part)?;
        Ok(UploadPartOutput {
            e_tag: Some(strong(&etag)),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            ..UploadPartOutput::default()
        })
    }

    /// UploadPartCopy. That the source may be read was decided before.
    pub(super) fn copy_part(&self, input: UploadPartCopyInput) -> S3Result<UploadPartCopyOutput> {
        let CopySource::Bucket { bucket, key, version_id: None } = &input.copy_source else {
            return Err(s3_error!(NotImplemented));
        };
        if input.copy_source_if_modified_since.is_some() || input.copy_source_if_unmodified_since.is_some() {
            return Err(s3_error!(NotImplemented));
        }
        let source = self.store.object(bucket, key)?;
        let failed = input.copy_source_if_match.is_some_and(|wanted| !wanted.allows(&source.etag))
            || input.copy_source_if_none_match.is_some_and(|known| known.allows(&source.etag));
        if failed {
            return Err(s3_error!(PreconditionFailed));
        }
        let content = copied(&source.content, input.copy_source_range.as_deref())?;
        let part = new_part(&self.store, content);
        let result = CopyPartResult {
            e_tag: Some(strong(&part.etag)),
            last_modified: Some(part.modified.into()),
            ..CopyPartResult::default()
        };
        add_part(&self.store, &input.bucket, (input.key, input.upload_id), input.part_number, part)?;
        Ok(UploadPartCopyOutput { copy_part_result: Some(result), ..UploadPartCopyOutput::default() })
    }

    /// CompleteMultipartUpload. Completed twice, the second answers `NoSuchUpload`: S3 may forget a finished upload
    /// at once, and a client that lost the first answer must be able to live with that.
    pub(super) fn complete_upload(
        &self,
        input: CompleteMultipartUploadInput,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        let checksums = input.checksum_crc32.is_some()
            || input.checksum_crc32c.is_some()
            || input.checksum_crc64nvme.is_some()
            || input.checksum_sha1.is_some()
            || input.checksum_sha256.is_some();
        if checksums {
            return Err(s3_error!(NotImplemented));
        }
        let wanted = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let mut bucket = self.store.bucket(&input.bucket)?.write();
        let name = (input.key, input.upload_id);
        let upload = bucket.uploads.get(&name).ok_or_else(|| s3_error!(NoSuchUpload))?;
        let parts = chosen(&upload.parts, &wanted, self.store.min_part_size)?;
        let object = joined(&self.store, &parts, upload.about.clone());
        if input.mpu_object_size.is_some_and(|size| size.cast_unsigned() != object.content.length()) {
            return Err(s3_error!(InvalidRequest, "the parts have another length together"));
        }
        let only = WriteOnlyIf { matches: input.if_match, none_matches: input.if_none_match };
        only.check(bucket.objects.get(&name.0).map(|object| object.etag.as_str()))?;
        bucket.uploads.remove(&name);
        let e_tag = Some(strong(&object.etag));
        bucket.objects.insert(name.0.clone(), object.into());
        Ok(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, name.0)),
            bucket: Some(input.bucket),
            key: Some(name.0),
            e_tag,
            ..CompleteMultipartUploadOutput::default()
        })
    }

    /// AbortMultipartUpload.
    pub(super) fn abort_upload(
        &self,
        input: AbortMultipartUploadInput,
    ) -> S3Result<AbortMultipartUploadOutput> {
        let mut bucket = self.store.bucket(&input.bucket)?.write();
        let gone = bucket.uploads.remove(&(input.key, input.upload_id));
        gone.map(|_| AbortMultipartUploadOutput::default()).ok_or_else(|| s3_error!(NoSuchUpload))
    }

    /// ListMultipartUploads, without common prefixes.
    pub(super) fn list_uploads(
        &self,
        input: ListMultipartUploadsInput,
    ) -> S3Result<ListMultipartUploadsOutput> {
        if input.delimiter.is_some() {
            return Err(s3_error!(NotImplemented));
        }
        let most = most(input.max_uploads)?;
        let bucket = self.store.bucket(&input.bucket)?.read();
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let after = (
            input.key_marker.clone().unwrap_or_default(),
            // A key alone stands for all its uploads: no id is greater than this one.
            input.upload_id_marker.clone().unwrap_or_else(|| char::MAX.to_string()),
        );
        let found = bucket.uploads.range((Excluded(&after), Unbounded));
        let mut uploads: Vec<_> = found
            .filter(|((key, _), _)| key.starts_with(prefix))
            .take(most + 1)
            .map(|((key, id), upload)| MultipartUpload {
                key: Some(key.clone()),
                upload_id: Some(id.clone()),
                initiated: Some(upload.begun.into()),
                ..MultipartUpload::default()
            })
            .collect();
        let more = uploads.len() > most;
        uploads.truncate(most);
        let last = uploads.last().filter(|_| more).cloned().unwrap_or_default();
        Ok(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix,
            key_marker: input.key_marker,
            upload_id_marker: input.upload_id_marker,
            max_uploads: i32::try_from(most).ok(),
            is_truncated: Some(more),
            next_key_marker: last.key,
            next_upload_id_marker: last.upload_id,
            uploads: Some(uploads),
            ..ListMultipartUploadsOutput::default()
        })
    }

    /// ListParts.
    pub(super) fn list_parts_of(&self, input: ListPartsInput) -> S3Result<ListPartsOutput> {
        let most = most(input.max_parts)?;
        let bucket = self.store.bucket(&input.bucket)?.read();
        let name = (input.key, input.upload_id);
        let upload = bucket.uploads.get(&name).ok_or_else(|| s3_error!(NoSuchUpload))?;
        let after = input.part_number_marker.unwrap_or(0);
        let mut parts: Vec<_> = upload
            .parts
            .range((Excluded(after), Unbounded))
            .take(most + 1)
            .map(|(number, part)| dto::Part {
                part_number: Some(*number),
                e_tag: Some(strong(&part.etag)),
                size: Some(part.content.length().cast_signed()),
                last_modified: Some(part.modified.into()),
                ..dto::Part::default()
            })
            .collect();
        let more = parts.len() > most;
        parts.truncate(most);
        Ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(name.0),
            upload_id: Some(name.1),
            part_number_marker: input.part_number_marker,
            max_parts: i32::try_from(most).ok(),
            is_truncated: Some(more),
            next_part_number_marker: parts.last().and_then(|part| part.part_number),
            parts: Some(parts),
            ..ListPartsOutput::default()
        })
    }
}

fn new_part(store: &Store, content: Content) -> Part {
    Part { etag: store.etag(&content), content, modified: SystemTime::now() }
}

/// Adds a part, or replaces the one of this number.
fn add_part(
    store: &Store,
    bucket: &str,
    upload: (String, String),
    number: PartNumber,
    part: Part,
) -> S3Result<()> {
    if !(1..=MAX_PART).contains(&number) {
        return Err(s3_error!(InvalidArgument, "parts are numbered from 1 to {MAX_PART}"));
    }
    let mut bucket = store.bucket(bucket)?.write();
    let upload = bucket.uploads.get_mut(&upload).ok_or_else(|| s3_error!(NoSuchUpload))?;
    upload.parts.insert(number, part);
    Ok(())
}

/// What UploadPartCopy takes of its source. Unlike that of a GET, the range must lie within.
fn copied(source: &Content, range: Option<&str>) -> S3Result<Content> {
    let Some(range) = range else { return Ok(source.clone()) };
    let invalid = || s3_error!(InvalidArgument, "the range is not one of the source");
    let (first, last) =
        range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).ok_or_else(invalid)?;
    let first: u64 = first.parse().map_err(|_| invalid())?;
    let last: u64 = last.parse().map_err(|_| invalid())?;
    if first > last || last >= source.length() {
        return Err(invalid());
    }
    Ok(source.slice(first..last + 1))
}

/// The parts that a completion names: they must be there, as they were sent, in ascending order, and large enough.
fn chosen(parts: &BTreeMap<PartNumber, Part>, wanted: &[CompletedPart], min: u64) -> S3Result<Vec<Part>> {
    if wanted.is_empty() {
        return Err(s3_error!(MalformedXML));
    }
    if !wanted.is_sorted_by(|a, b| a.part_number < b.part_number) {
        return Err(s3_error!(InvalidPartOrder));
    }
    let chosen: Vec<Part> = wanted
        .iter()
        .map(|wanted| {
            let part = wanted.part_number.and_then(|number| parts.get(&number));
            let same = |part: &&Part| wanted.e_tag.as_ref().is_some_and(|etag| etag.value() == part.etag);
            part.filter(same).cloned().ok_or_else(|| s3_error!(InvalidPart))
        })
        .collect::<S3Result<_>>()?;
    if chosen[..chosen.len() - 1].iter().any(|part| part.content.length() < min) {
        return Err(s3_error!(EntityTooSmall));
    }
    Ok(chosen)
}

fn joined(store: &Store, parts: &[Part], about: About) -> Object {
    let mut content = Content::default();
    parts.iter().for_each(|part| content.append(&part.content));
    let etags: Vec<&str> = parts.iter().map(|part| part.etag.as_str()).collect();
    Object {
        content,
        etag: store.etag_of_parts(&etags),
        modified: SystemTime::now(),
        about,
        checksum: Checksum::default(),
    }
}
