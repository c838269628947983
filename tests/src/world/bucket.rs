//! A bucket as a test sees it, past the controller.

use std::sync::Arc;

use hyper::body::Bytes;

use crate::outside::OutsideStore;
use crate::s3::{ObjectInfo, OpenUpload, S3Bucket};

/// The bucket of a world, looked at and changed past the controller: all of one of the tests' own server, or a test's
/// part of one of an [`OutsideStore`].
#[derive(Clone, Debug)]
pub enum Bucket {
    /// Of the tests' own server.
    Own(S3Bucket),
    /// Of another one.
    Outside(Arc<OutsideStore>),
}

impl Bucket {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Bucket::Own(bucket) => bucket.name(),
            Bucket::Outside(store) => store.bucket(),
        }
    }

    /// All keys, in the order of their bytes.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        match self {
            Bucket::Own(bucket) => bucket.keys(),
            Bucket::Outside(store) => store.keys(),
        }
    }

    /// The bytes of an object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Bytes> {
        match self {
            Bucket::Own(bucket) => bucket.get(key),
            Bucket::Outside(store) => store.get(key),
        }
    }

    /// What is known of an object beside its bytes.
    #[must_use]
    pub fn info(&self, key: &str) -> Option<ObjectInfo> {
        match self {
            Bucket::Own(bucket) => bucket.info(key),
            Bucket::Outside(store) => store.info(key),
        }
    }

    /// Whether there can be an object under a key: Ceph's RGW takes none with a NUL in it.
    #[must_use]
    pub fn takes(&self, key: &str) -> bool {
        matches!(self, Bucket::Own(_)) || !key.contains('\0')
    }

    /// Stores an object, in place of the one that may be there.
    pub fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        match self {
            Bucket::Own(bucket) => drop(bucket.put(key, bytes)),
            Bucket::Outside(store) => store.put(key, bytes),
        }
    }

    /// Removes an object, whether there is one or not.
    pub fn remove(&self, key: &str) {
        match self {
            Bucket::Own(bucket) => drop(bucket.remove(key)),
            Bucket::Outside(store) => store.remove(key),
        }
    }

    /// The open multipart uploads.
    #[must_use]
    pub fn uploads(&self) -> Vec<OpenUpload> {
        match self {
            Bucket::Own(bucket) => bucket.uploads(),
            Bucket::Outside(store) => store.uploads(),
        }
    }
}
