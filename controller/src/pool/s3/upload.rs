//! What all uploads have in common.
//!
//! **Guarantees**: an upload that answered `Ok` is a whole object of the size that was asked for. One that failed may
//! have left an object under its key, never a part of one that is paid for unseen: parts are given back.
//! **Assumptions**: nobody else uploads under this key.
//!
//! Every upload carries a mark of its own in the object's metadata. So an answer that was lost is no riddle: the
//! object that is there has the mark, or it is not ours.

use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;

use super::{S3Error, S3Pool, Stored};

/// Largest file that is sent as one request, bytes; beyond, a lost connection costs too much.
pub const WHOLE_MAX: u64 = 16 << 20;
/// The name of the mark in the metadata.
pub(super) const MARK: &str = "vmds-upload";

impl S3Pool {
    /// A PUT of a new object.
    pub(super) fn put(&self, key: &str) -> PutObjectFluentBuilder {
        let put = self.client.put_object().bucket(&self.settings.bucket).key(self.settings.full_key(key));
        put.set_if_none_match(self.only_if_new())
    }

    /// The condition that an object is new, where the endpoint honours it.
    pub(super) fn only_if_new(&self) -> Option<String> {
        self.capabilities().is_some_and(|can| can.conditional_put).then(|| "*".to_owned())
    }

    /// Whether the endpoint compares what comes with the checksum that comes with it.
    pub(super) fn compares_checksums(&self) -> bool {
        self.capabilities().is_some_and(|can| can.checksums)
    }

    /// Looks whether an upload that failed has come about after all.
    pub(super) async fn what_came_of(
        &self,
        key: &str,
        size: u64,
        mark: &str,
        error: S3Error,
    ) -> Result<Stored, S3Error> {
        let unknown = matches!(
            error,
            S3Error::Exists
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
            // What was refused because of an object that is gone by now may be tried again.
            Ok(None) if matches!(error, S3Error::Exists) => {
                Err(S3Error::Unavailable("the object came and went".to_owned()))
            }
            Ok(_) | Err(_) => Err(error),
        }
    }
}

/// Says what an error means of an object that is made on condition that it is new.
pub(super) fn if_new(error: S3Error) -> S3Error {
    match error {
        S3Error::Changed => S3Error::Exists,
        other => other,
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

/// 128 random bits.
pub(super) fn random_hex() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}
