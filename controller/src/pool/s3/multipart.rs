//! Large files go up in parts, a few at a time.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, MultipartUpload};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::body::file_slice;
use super::client::with_time_for;
use super::error::classify;
use super::upload::{MARK, no_etag, signed};
use super::{S3Error, S3Pool};

/// Smallest part, bytes; the last one may be smaller.
const PART_MIN: u64 = 8 << 20;
/// Most parts of an object.
const PARTS_MAX: u64 = 10_000;
/// Parts are multiples of this many bytes.
const PART_STEP: u64 = 1 << 20;
/// Largest object, bytes.
const OBJECT_MAX: u64 = 5 << 40;
/// Parts of one upload that are on their way at the same time.
const PARTS_AT_ONCE: usize = 4;
/// Longest time spent on giving back the parts of an upload that failed.
const ABORT_WITHIN: Duration = Duration::from_secs(10);
/// Most pages of uploads that are looked at at once.
const PAGES_MAX: usize = 100;

/// The size of the parts of an object.
fn part_size(size: u64) -> u64 {
    size.div_ceil(PARTS_MAX).next_multiple_of(PART_STEP).max(PART_MIN)
}

/// The parts of an object, in order.
fn parts(size: u64) -> impl Iterator<Item = Range<u64>> {
    let step = part_size(size);
    (0..size.div_ceil(step)).map(move |number| number * step..size.min((number + 1) * step))
}

impl S3Pool {
    /// Uploads in parts; the ETag of the object. When it fails, or is given up by whoever waits, parts are given back.
    pub(super) async fn put_parts(
        &self,
        key: &str,
        file: Arc<OwnedFd>,
        size: u64,
        mark: &str,
    ) -> Result<String, S3Error> {
        if size > OBJECT_MAX {
            return Err(S3Error::Invalid("the file is larger than an object can be (5 TiB)".to_owned()));
        }
        let (bucket, full_key) = (&self.settings.bucket, self.settings.full_key(key));
        let begin = self.client.create_multipart_upload().bucket(bucket).key(&full_key).metadata(MARK, mark);
        let begin =
            begin.set_checksum_algorithm(self.compares_checksums().then_some(ChecksumAlgorithm::Crc32));
        let begun = begin.send().await.map_err(|error| classify(&error))?;
        let id =
            begun.upload_id.ok_or_else(|| S3Error::Invalid("the endpoint begins no upload".to_owned()))?;
        let upload = Upload { pool: self.clone(), key: full_key, id, over: false };
        let parts = upload.send_all(file, size).await?;
        upload.complete(parts).await
    }

    /// Gives back the parts of uploads of this pool that began longer ago; how many uploads there were.
    ///
    /// # Errors
    /// [`S3Error::Unsupported`]: the endpoint does not list uploads.
    pub async fn abort_stale_uploads(&self, older_than: Duration) -> Result<usize, S3Error> {
        let (mut aborted, mut marker) = (0, None);
        for _ in 0..PAGES_MAX {
            let page = self
                .client
                .list_multipart_uploads()
                .bucket(&self.settings.bucket)
                .prefix(&self.settings.prefix)
                .set_key_marker(marker.take())
                .send()
                .await
                .map_err(|error| classify(&error))?;
            let more = page.is_truncated() == Some(true);
            let next = page.next_key_marker().map(str::to_owned);
            for upload in page.uploads() {
                aborted += usize::from(self.abort_if_stale(upload, older_than).await?);
            }
            match next {
                Some(next) if more => marker = Some(next),
                _ => break,
            }
        }
        Ok(aborted)
    }

    async fn abort_if_stale(&self, upload: &MultipartUpload, older: Duration) -> Result<bool, S3Error> {
        let (Some(key), Some(id), Some(began)) = (upload.key(), upload.upload_id(), upload.initiated())
        else {
            return Ok(false);
        };
        let began = SystemTime::try_from(*began).unwrap_or(SystemTime::UNIX_EPOCH);
        let stale = SystemTime::now().duration_since(began).is_ok_and(|age| age >= older);
        // An endpoint that ignores the prefix must not make us touch what is not ours.
        if !stale || !key.starts_with(&self.settings.prefix) {
            return Ok(false);
        }
        match self.abort(key, id).await {
            Ok(()) => Ok(true),
            Err(S3Error::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives back what an upload has sent so far.
    pub(super) async fn abort(&self, full_key: &str, id: &str) -> Result<(), S3Error> {
        let abort = self.client.abort_multipart_upload().bucket(&self.settings.bucket);
        abort.key(full_key).upload_id(id).send().await.map(drop).map_err(|error| classify(&error))
    }
}

/// An upload that was begun; dropped before it is complete, it gives back its parts.
struct Upload {
    pool: S3Pool,
    key: String,
    id: String,
    over: bool,
}

impl Upload {
    async fn send_all(&self, file: Arc<OwnedFd>, size: u64) -> Result<Vec<CompletedPart>, S3Error> {
        let mut sending = JoinSet::new();
        let mut sent = Vec::new();
        for (number, range) in (1..).zip(parts(size)) {
            if sending.len() >= PARTS_AT_ONCE {
                sent.push(joined(&mut sending).await?);
            }
            let (pool, key, id) = (self.pool.clone(), self.key.clone(), self.id.clone());
            sending.spawn(send_part(pool, key, id, number, file.clone(), range));
        }
        while !sending.is_empty() {
            sent.push(joined(&mut sending).await?);
        }
        sent.sort_by_key(|part| part.part_number);
        Ok(sent)
    }

    async fn complete(mut self, parts: Vec<CompletedPart>) -> Result<String, S3Error> {
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
            .map_err(|error| classify(&error))?;
        self.over = true;
        completed.e_tag.ok_or_else(no_etag)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let (pool, key, id) =
            (self.pool.clone(), std::mem::take(&mut self.key), std::mem::take(&mut self.id));
        // Without a runtime everything ends, and the sweep of stale uploads finds it.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            // An upload that is over after all is not found; one that stays is found by the sweep of stale ones.
            let _ = tokio::time::timeout(ABORT_WITHIN, pool.abort(&key, &id)).await;
        });
    }
}

async fn joined(sending: &mut JoinSet<Result<CompletedPart, S3Error>>) -> Result<CompletedPart, S3Error> {
    match sending.join_next().await {
        Some(Ok(sent)) => sent,
        _ => Err(S3Error::Unavailable("an upload was given up".to_owned())),
    }
}

async fn send_part(
    pool: S3Pool,
    key: String,
    id: String,
    number: i32,
    file: Arc<OwnedFd>,
    range: Range<u64>,
) -> Result<CompletedPart, S3Error> {
    let _turn = pool.turn().await;
    let length = range.end - range.start;
    let checksum = pool.checksum(&file, range.clone()).await?;
    let sent = pool
        .client
        .upload_part()
        .bucket(&pool.settings.bucket)
        .key(key)
        .upload_id(id)
        .part_number(number)
        .content_length(signed(length)?)
        .set_checksum_crc32(checksum.clone())
        .body(file_slice(file, range))
        .customize()
        .config_override(with_time_for(length, pool.settings.patience))
        .disable_payload_signing()
        .send()
        .await
        .map_err(|error| classify(&error))?;
    let etag = sent.e_tag.ok_or_else(no_etag)?;
    let part = CompletedPart::builder().part_number(number).e_tag(etag);
    Ok(part.set_checksum_crc32(checksum).build())
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
