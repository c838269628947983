//! Uploads that nobody goes on with: their parts cost money and are seen by nobody.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::types::MultipartUpload;

use super::error::classify;
use super::{S3Error, S3Pool};

/// Most pages of uploads that are looked at at once.
const PAGES_MAX: usize = 100;

impl S3Pool {
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
}
