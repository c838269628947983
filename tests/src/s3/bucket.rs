//! A bucket as the test sees it: directly, without a request.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::body::Bytes;
use parking_lot::RwLock;
use s3s::dto::Checksum;

use super::content::Content;
use super::store::{About, Bucket, Object, Store};

/// A bucket of a running server, looked at and changed directly: nothing here is a request, is recorded, meets a
/// fault or needs a right. Clones are the same bucket.
#[derive(Clone)]
pub struct S3Bucket {
    store: Arc<Store>,
    name: String,
}

/// What is known of an object beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its length in bytes.
    pub length: u64,
    /// Its ETag, without quotes.
    pub etag: String,
    /// The content type it was stored with.
    pub content_type: Option<String>,
}

/// A multipart upload that was begun and neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenUpload {
    /// The key it is for.
    pub key: String,
    /// Its id.
    pub id: String,
    /// The numbers and lengths in bytes of the parts it has, in ascending order.
    pub parts: Vec<(i32, u64)>,
}

impl S3Bucket {
    /// None if the server has no such bucket.
    pub(super) fn of(store: &Arc<Store>, name: &str) -> Option<Self> {
        store.bucket(name).ok()?;
        Some(Self { store: Arc::clone(store), name: name.to_owned() })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All keys, in the order of their bytes.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.bucket().read().objects.keys().cloned().collect()
    }

    /// The bytes of an object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Bytes> {
        let object = self.bucket().read().objects.get(key).cloned();
        object.map(|object| object.content.to_bytes())
    }

    /// What is known of an object beside its bytes.
    #[must_use]
    pub fn info(&self, key: &str) -> Option<ObjectInfo> {
        self.bucket().read().objects.get(key).map(|object| ObjectInfo {
            length: object.content.length(),
            etag: object.etag.clone(),
            content_type: object.about.content_type.clone(),
        })
    }

    /// Stores an object, in place of the one that may be there, and gives its ETag without quotes.
    pub fn put(&self, key: &str, bytes: impl Into<Bytes>) -> String {
        let content = Content::from(bytes.into());
        let etag = self.store.etag(&content);
        let object = Object {
            content,
            etag: etag.clone(),
            modified: SystemTime::now(),
            about: About::default(),
            checksum: Checksum::default(),
        };
        self.bucket().write().objects.insert(key.to_owned(), Arc::new(object));
        etag
    }

    /// Removes an object, and tells whether there was one.
    pub fn remove(&self, key: &str) -> bool {
        self.bucket().write().objects.remove(key).is_some()
    }

    /// The open multipart uploads, by key, then by age.
    #[must_use]
    pub fn uploads(&self) -> Vec<OpenUpload> {
        let bucket = self.bucket().read();
        let uploads = bucket.uploads.iter().map(|((key, id), upload)| OpenUpload {
            key: key.clone(),
            id: id.clone(),
            parts: upload.parts.iter().map(|(number, part)| (*number, part.content.length())).collect(),
        });
        uploads.collect()
    }

    fn bucket(&self) -> &RwLock<Bucket> {
        self.store.bucket(&self.name).expect("buckets are never removed")
    }
}

impl std::fmt::Debug for S3Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Bucket").field("name", &self.name).finish_non_exhaustive()
    }
}
