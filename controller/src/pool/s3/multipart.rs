//! Objects that go up in parts.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use tokio::runtime::Handle;

use super::body::{Measured, file_slice, measure, read};
use super::client::with_time_for;
use super::error::classify;
use super::presign::range_header;
use super::upload::{MARK, if_new, no_etag, signed};
use super::{S3Error, S3Pool};

/// Smallest part, bytes; the last one may be smaller.
pub(super) const PART_MIN: u64 = 8 << 20;
/// Most parts of an object.
const PARTS_MAX: u64 = 10_000;
/// Parts are multiples of this many bytes.
const PART_STEP: u64 = 1 << 20;
/// Largest object, bytes.
const OBJECT_MAX: u64 = 5 << 40;
/// Longest time spent on giving back the parts of an upload that failed.
const ABORT_WITHIN: Duration = Duration::from_secs(10);

/// The size of the parts of an object, bytes: all have the same, but for the last one.
pub fn part_size(size: u64) -> u64 {
    size.div_ceil(PARTS_MAX).next_multiple_of(PART_STEP).max(PART_MIN)
}

/// The parts of an object, in order.
pub fn parts(size: u64) -> impl Iterator<Item = Range<u64>> {
    let step = part_size(size);
    (0..size.div_ceil(step)).map(move |number| number * step..size.min((number + 1) * step))
}

/// An upload that was begun; dropped before it is complete, it gives back its parts.
pub(super) struct Multipart {
    pool: S3Pool,
    key: String,
    id: String,
    over: bool,
    runtime: Handle,
}

/// A part that is there.
#[derive(Clone)]
pub(super) struct Sent {
    part: CompletedPart,
    /// The [`address_map::sums`] of its bytes.
    pub(super) sums: Vec<u64>,
}

impl Multipart {
    /// Begins an upload of `size` bytes, as far as that is known. On a runtime, which gives back what is not completed.
    pub(super) async fn begin(pool: &S3Pool, key: &str, size: u64, mark: &str) -> Result<Self, S3Error> {
        if size > OBJECT_MAX {
            return Err(S3Error::Invalid("the file is larger than an object can be (5 TiB)".to_owned()));
        }
        let (bucket, full_key) = (&pool.settings.bucket, pool.settings.full_key(key));
        let begin = pool.client.create_multipart_upload().bucket(bucket).key(&full_key).metadata(MARK, mark);
        let begin =
            begin.set_checksum_algorithm(pool.compares_checksums().then_some(ChecksumAlgorithm::Crc32));
        let begun = begin.send().await.map_err(|error| classify(&error))?;
        let id =
            begun.upload_id.ok_or_else(|| S3Error::Invalid("the endpoint begins no upload".to_owned()))?;
        Ok(Self { pool: pool.clone(), key: full_key, id, over: false, runtime: Handle::current() })
    }

    /// Sends bytes of a file that does not change.
    pub(super) async fn send(
        &self,
        number: i32,
        file: Arc<OwnedFd>,
        range: Range<u64>,
    ) -> Result<Sent, S3Error> {
        let _turn = self.pool.turn().await;
        let measured = measure(file.clone(), range.clone()).await.map_err(S3Error::Staging)?;
        let length = range.end - range.start;
        self.send_measured(number, file_slice(file, range), length, measured).await
    }

    /// Sends bytes of a file that may be changing, by way of memory: what is sent was there at one time.
    pub(super) async fn send_copied(
        &self,
        number: i32,
        file: Arc<OwnedFd>,
        range: Range<u64>,
    ) -> Result<Sent, S3Error> {
        let (_buffer, _turn) = (self.pool.buffer().await, self.pool.turn().await);
        let (bytes, measured) = read(file, range).await.map_err(S3Error::Staging)?;
        let length = bytes.len() as u64;
        self.send_measured(number, ByteStream::from(bytes), length, measured).await
    }

    async fn send_measured(
        &self,
        number: i32,
        body: ByteStream,
        length: u64,
        measured: Measured,
    ) -> Result<Sent, S3Error> {
        let crc32 = self.pool.compares_checksums().then_some(measured.crc32);
        let sent = self
            .pool
            .client
            .upload_part()
            .bucket(&self.pool.settings.bucket)
            .key(&self.key)
            .upload_id(&self.id)
            .part_number(number)
            .content_length(signed(length)?)
            .set_checksum_crc32(crc32.clone())
            .body(body)
            .customize()
            .config_override(with_time_for(length, self.pool.settings.patience))
            .disable_payload_signing()
            .send()
            .await
            .map_err(|error| classify(&error))?;
        let etag = sent.e_tag.ok_or_else(no_etag)?;
        let part = CompletedPart::builder().part_number(number).e_tag(etag).set_checksum_crc32(crc32).build();
        Ok(Sent { part, sums: measured.sums })
    }

    /// Has the endpoint copy bytes of another object of the pool, which are known to have these sums.
    pub(super) async fn copy(
        &self,
        number: i32,
        (key, etag): (&str, &str),
        range: Range<u64>,
        sums: Vec<u64>,
    ) -> Result<Sent, S3Error> {
        let _turn = self.pool.turn().await;
        let settings = &self.pool.settings;
        let copied = self
            .pool
            .client
            .upload_part_copy()
            .bucket(&settings.bucket)
            .key(&self.key)
            .upload_id(&self.id)
            .part_number(number)
            .copy_source(settings.copy_source(key))
            .copy_source_range(range_header(&range)?)
            .copy_source_if_match(etag)
            .customize()
            .config_override(with_time_for(range.end - range.start, settings.patience))
            .mutate_request(say_empty)
            .send()
            .await
            .map_err(|error| classify(&error))?;
        let copied = copied.copy_part_result.ok_or_else(no_etag)?;
        let part = CompletedPart::builder()
            .part_number(number)
            .e_tag(copied.e_tag.ok_or_else(no_etag)?)
            .set_checksum_crc32(copied.checksum_crc32)
            .build();
        Ok(Sent { part, sums })
    }

    /// Makes the object of parts, in order; its ETag, as far as the endpoint tells: Ceph's RGW tells an empty one.
    pub(super) async fn complete(&mut self, parts: Vec<Sent>) -> Result<String, S3Error> {
        let parts = parts.into_iter().map(|sent| sent.part).collect();
        let whole = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let completed = self
            .pool
            .client
            .complete_multipart_upload()
            .bucket(&self.pool.settings.bucket)
            .key(&self.key)
            .upload_id(&self.id)
            .multipart_upload(whole)
            .set_if_none_match(self.pool.only_if_new())
            .send()
            .await
            .map_err(|error| if_new(classify(&error)))?;
        self.over = true;
        Ok(completed.e_tag.unwrap_or_default())
    }
}

/// Says of a PUT that nothing follows: Ceph's RGW refuses one that says nothing (`MissingContentLength`).
pub(super) fn say_empty(request: &mut HttpRequest) {
    request.headers_mut().insert("content-length", "0");
}

impl Drop for Multipart {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let (pool, key, id) =
            (self.pool.clone(), std::mem::take(&mut self.key), std::mem::take(&mut self.id));
        self.runtime.spawn(async move {
            // An upload that is over after all is not found; one that stays is found by the sweep of stale ones.
            let _ = tokio::time::timeout(ABORT_WITHIN, pool.abort(&key, &id)).await;
        });
    }
}

impl S3Pool {
    /// Gives back what an upload has sent so far.
    pub(super) async fn abort(&self, full_key: &str, id: &str) -> Result<(), S3Error> {
        let abort = self.client.abort_multipart_upload().bucket(&self.settings.bucket);
        abort.key(full_key).upload_id(id).send().await.map(drop).map_err(|error| classify(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_large_enough_few_enough_and_all_there() {
        for size in [1, PART_MIN, 40 << 20, (100 << 30) + 1, OBJECT_MAX] {
            let all: Vec<_> = parts(size).collect();
            assert!(all.len() as u64 <= PARTS_MAX, "{size}");
            assert_eq!((all[0].start, all[all.len() - 1].end), (0, size));
            assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(all[..all.len() - 1].iter().all(|part| part.end - part.start >= PART_MIN));
        }
    }
}
