//! Uploading a file as one new object.
//!
//! **Guarantees**: an upload that answered `Ok` is a whole object of the size that was asked for. One that failed may
//! have left an object under its key, never a part of one that is paid for unseen: parts are given back.
//! **Assumptions**: nobody else uploads under this key, and the file does not change meanwhile.
//!
//! Every upload carries a mark of its own in the object's metadata. So an answer that was lost is no riddle: the
//! object that is there has the mark, or it is not ours.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;

use super::body::{checksum, file_slice};
use super::client::{time_for, with_time_for};
use super::error::classify;
use super::{S3Error, S3Pool, Stored};

/// Largest file that is sent as one request; beyond, a lost connection costs too much.
pub(super) const SINGLE_MAX: u64 = 16 << 20;
/// The name of the mark in the metadata.
pub(super) const MARK: &str = "vmds-upload";

impl S3Pool {
    /// Uploads the first `size` bytes of a file as a new object.
    ///
    /// # Errors
    /// [`S3Error::Exists`]: there is another object under this key (seen only where the endpoint honours conditional
    /// writes). All others: nothing can be said about the object, except that it is not there in part.
    pub async fn upload(&self, key: &str, file: Arc<OwnedFd>, size: u64) -> Result<Stored, S3Error> {
        let mark = new_mark()?;
        let sent = async {
            match size {
                0..=SINGLE_MAX => self.put_whole(key, file, size, &mark).await,
                _ => self.put_parts(key, file, size, &mark).await,
            }
        };
        match tokio::time::timeout(time_for(size, self.settings.patience), sent).await {
            Ok(Ok(etag)) => Ok(Stored { etag: self.etag_for_use(&etag), size }),
            // The answer may have been lost, or an attempt before this one may have done it.
            Ok(Err(error)) => self.what_came_of(key, size, &mark, error).await,
            Err(_) => self.what_came_of(key, size, &mark, S3Error::Timeout).await,
        }
    }

    async fn put_whole(
        &self,
        key: &str,
        file: Arc<OwnedFd>,
        size: u64,
        mark: &str,
    ) -> Result<String, S3Error> {
        let _turn = self.turn().await;
        let request = self
            .put(key)
            .set_checksum_crc32(self.checksum(&file, 0..size).await?)
            .metadata(MARK, mark)
            .content_length(signed(size)?)
            .body(file_slice(file, 0..size))
            .customize()
            .config_override(with_time_for(size, self.settings.patience))
            .disable_payload_signing();
        let stored = request.send().await.map_err(|error| classify(&error))?;
        stored.e_tag.ok_or_else(no_etag)
    }

    /// A PUT of a new object.
    pub(super) fn put(&self, key: &str) -> PutObjectFluentBuilder {
        let put = self.client.put_object().bucket(&self.settings.bucket).key(self.settings.full_key(key));
        put.set_if_none_match(self.only_if_new())
    }

    /// The condition that an object is new, where the endpoint honours it.
    pub(super) fn only_if_new(&self) -> Option<String> {
        self.capabilities().is_some_and(|can| can.conditional_put).then(|| "*".to_owned())
    }

    /// The checksum to send with a piece of a file, where the endpoint compares it.
    pub(super) async fn checksum(
        &self,
        file: &Arc<OwnedFd>,
        range: Range<u64>,
    ) -> Result<Option<String>, S3Error> {
        match self.compares_checksums() {
            true => checksum(file.clone(), range).await.map(Some).map_err(S3Error::Staging),
            false => Ok(None),
        }
    }

    pub(super) fn compares_checksums(&self) -> bool {
        self.capabilities().is_some_and(|can| can.checksums)
    }

    /// Looks whether an upload that failed has come about after all.
    async fn what_came_of(
        &self,
        key: &str,
        size: u64,
        mark: &str,
        error: S3Error,
    ) -> Result<Stored, S3Error> {
        let unknown = matches!(
            error,
            S3Error::Changed
                | S3Error::NotFound
                | S3Error::Timeout
                | S3Error::Throttled
                | S3Error::Unavailable(_)
        );
        if !unknown {
            return Err(error);
        }
        let looked = tokio::time::timeout(self.settings.patience, self.look(key)).await;
        match looked.unwrap_or(Err(S3Error::Timeout)) {
            Ok(Some(there)) if there.mark.as_deref() == Some(mark) && there.stored.size == size => {
                Ok(there.stored)
            }
            Ok(Some(_)) if matches!(error, S3Error::Changed) => Err(S3Error::Exists),
            // What was refused because of an object that is gone by now may be tried again.
            Ok(_) if matches!(error, S3Error::Changed) => {
                Err(S3Error::Unavailable("the object came and went".to_owned()))
            }
            Ok(_) | Err(_) => Err(error),
        }
    }
}

/// A number as the SDK wants it.
pub(super) fn signed(size: u64) -> Result<i64, S3Error> {
    i64::try_from(size).map_err(|_| S3Error::Invalid("the file is larger than any object".to_owned()))
}

/// An endpoint must say what it has stored.
pub(super) fn no_etag() -> S3Error {
    S3Error::Invalid("the endpoint gives objects no ETag".to_owned())
}

/// A mark that no other upload has.
fn new_mark() -> Result<String, S3Error> {
    random_hex().map_err(S3Error::Staging)
}

/// 128 random bits.
pub(super) fn random_hex() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}
