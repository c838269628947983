//! Objects as a whole: looked at, listed, deleted.

use std::collections::HashSet;
use std::time::SystemTime;

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use md5::{Digest, Md5};

use super::error::{classify, of_answer};
use super::upload::MARK;
use super::{S3Error, S3Pool, Stored};

/// Most keys of one request.
const DELETE_MAX: usize = 1000;

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key, without the pool's prefix.
    pub key: String,
    /// What it is.
    pub stored: Stored,
    /// When it was made, by the endpoint's clock.
    pub modified: SystemTime,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects, in order of their keys.
    pub objects: Vec<Listed>,
    /// After which key to go on; `None`: that was all.
    pub next: Option<String>,
}

/// An object and whose upload it is.
pub(super) struct Seen {
    pub(super) stored: Stored,
    pub(super) mark: Option<String>,
}

impl S3Pool {
    /// What is under a key; `None`: nothing.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub async fn head(&self, key: &str) -> Result<Option<Stored>, S3Error> {
        Ok(self.look(key).await?.map(|seen| seen.stored))
    }

    pub(super) async fn look(&self, key: &str) -> Result<Option<Seen>, S3Error> {
        let head = self.client.head_object().bucket(&self.settings.bucket).key(self.settings.full_key(key));
        let seen = match head.send().await.map_err(|error| classify(&error)) {
            Ok(seen) => seen,
            Err(S3Error::NotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = seen.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0);
        let etag = self.etag_for_use(seen.e_tag().unwrap_or_default());
        let mark = seen.metadata().and_then(|metadata| metadata.get(MARK).cloned());
        Ok(Some(Seen { stored: Stored { etag, size }, mark }))
    }

    /// Makes sure that what was copied of an object was of the one that was meant: not every endpoint honours the condition of
    /// a copy (Ceph's RGW does not), and an object that was imported may change at any time.
    pub(super) async fn must_still_be(&self, key: &str, etag: &str) -> Result<(), S3Error> {
        let there = self.head(key).await?.is_some_and(|there| self.is_same_etag(&there.etag, etag));
        if there { Ok(()) } else { Err(S3Error::Changed) }
    }

    /// Deletes objects; those that are gone now, whether they were there or not.
    ///
    /// # Errors
    /// A whole request failed; objects of requests before it are gone.
    pub async fn delete(&self, keys: &[String]) -> Result<Vec<String>, S3Error> {
        let mut gone = Vec::with_capacity(keys.len());
        for batch in keys.chunks(DELETE_MAX) {
            match self.delete_batch(batch).await {
                Ok(stayed) => gone.extend(batch.iter().filter(|key| !stayed.contains(*key)).cloned()),
                // Rights to delete objects are not everywhere rights to delete a list of them.
                Err(S3Error::Unsupported(_) | S3Error::Denied(_)) => {
                    self.delete_each(batch, &mut gone).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    /// Deletes with one request; the keys that stayed.
    async fn delete_batch(&self, keys: &[String]) -> Result<HashSet<String>, S3Error> {
        let named = |key: &String| ObjectIdentifier::builder().key(self.settings.full_key(key)).build();
        let built = |_| S3Error::Invalid("the request cannot be made".to_owned());
        let objects = keys.iter().map(named).collect::<Result<_, _>>().map_err(built)?;
        let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build().map_err(built)?;
        let answer = self
            .client
            .delete_objects()
            .bucket(&self.settings.bucket)
            .delete(delete)
            .customize()
            // Servers older than the SDK's checksums insist on this one.
            .mutate_request(|request| {
                if let Some(md5) = request.body().bytes().map(content_md5) {
                    request.headers_mut().insert("content-md5", md5);
                }
            })
            .send()
            .await
            .map_err(|error| classify(&error))?;
        let stayed = answer.errors().iter().filter(|e| e.code() != Some("NoSuchKey"));
        for (error, code) in stayed.clone().filter_map(|e| Some((e, e.code()?))).take(1) {
            let why = of_answer(400, code).to_string();
            tracing::warn!(key = error.key(), why, "objects cannot be deleted");
        }
        let own = |key: &str| key.strip_prefix(&self.settings.prefix).map(str::to_owned);
        // What did not go and is not named may be any of them.
        let unnamed = || S3Error::Unavailable("objects cannot be deleted".to_owned());
        stayed.map(|error| error.key().and_then(own).ok_or_else(unnamed)).collect()
    }

    /// Deletes one by one, for endpoints that know no other way.
    async fn delete_each(&self, keys: &[String], gone: &mut Vec<String>) -> Result<(), S3Error> {
        for key in keys {
            match self.delete_one(key).await {
                Ok(()) | Err(S3Error::NotFound) => gone.push(key.clone()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) async fn delete_one(&self, key: &str) -> Result<(), S3Error> {
        let delete = self.client.delete_object().bucket(&self.settings.bucket);
        let deleted = delete.key(self.settings.full_key(key)).send().await;
        deleted.map(drop).map_err(|error| classify(&error))
    }

    /// Lists the pool's objects in order of their keys, a page (at most 1000) at a time. `after`: only keys after this
    /// one.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub async fn list(&self, after: Option<String>) -> Result<Page, S3Error> {
        let prefix = &self.settings.prefix;
        let answer = self
            .client
            .list_objects_v2()
            .bucket(&self.settings.bucket)
            .prefix(prefix)
            .set_start_after(after.as_deref().map(|key| self.settings.full_key(key)))
            .send()
            .await
            .map_err(|error| classify(&error))?;
        let listed = |object: &aws_sdk_s3::types::Object| {
            // What is not below the prefix is not ours, whatever the endpoint says.
            let key = object.key()?.strip_prefix(prefix)?.to_owned();
            let etag = self.etag_for_use(object.e_tag().unwrap_or_default());
            let size = u64::try_from(object.size()?).ok()?;
            let modified = object.last_modified().and_then(|time| SystemTime::try_from(*time).ok());
            let modified = modified.unwrap_or(SystemTime::UNIX_EPOCH);
            Some(Listed { key, stored: Stored { etag, size }, modified })
        };
        let objects: Vec<_> = answer.contents().iter().filter_map(listed).collect();
        let more = answer.is_truncated() == Some(true);
        let next =
            objects.last().map(|last| last.key.clone()).filter(|last| more && after.as_ref() != Some(last));
        Ok(Page { objects, next })
    }
}

/// The value of a `Content-MD5` header.
fn content_md5(body: &[u8]) -> String {
    base64(&Md5::digest(body))
}

fn base64(bytes: &[u8]) -> String {
    aws_smithy_types::base64::encode(bytes)
}
