//! An object store that is not the tests' own: it is there already, and the environment says where.
//!
//! `tests/rgw` starts one and runs a command beside it. Whatever bucket is named must be for tests alone.

use std::env;
use std::error::Error;
use std::time::SystemTime;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::ByteStream;
use hyper::body::Bytes;
use tokio::runtime::{Builder, Runtime};

use crate::s3::{ObjectInfo, OpenUpload};

/// What the names of all settings begin with.
const SETTING: &str = "VMDS_TEST_S3_";
/// The region to sign for, if none is named.
const REGION: &str = "us-east-1";

/// A part of the bucket, for one test: the keys that begin with a prefix of its own. Keys are told and taken without it.
/// Dropping it removes what is there.
///
/// It has a runtime of its own, so it is not for use on another one.
#[derive(Debug)]
pub struct OutsideStore {
    endpoint: String,
    bucket: String,
    region: String,
    access_key: String,
    secret_key: String,
    prefix: String,
    client: Client,
    runtime: Runtime,
}

impl OutsideStore {
    /// The store that the environment names: `VMDS_TEST_S3_ENDPOINT`, `_BUCKET`, `_ACCESS_KEY`, `_SECRET_KEY`, and perhaps
    /// `_REGION`; `None`: there is no `VMDS_TEST_S3_ENDPOINT`.
    ///
    /// # Panics
    /// If it is named in part.
    #[must_use]
    pub fn named() -> Option<Self> {
        let setting = |name: &str| env::var(format!("{SETTING}{name}")).ok();
        let needed = |name: &str| setting(name).unwrap_or_else(|| panic!("{SETTING}{name} is missing"));
        let endpoint = setting("ENDPOINT")?;
        let (access_key, secret_key) = (needed("ACCESS_KEY"), needed("SECRET_KEY"));
        let region = setting("REGION").unwrap_or_else(|| REGION.to_owned());
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.clone()))
            .endpoint_url(&endpoint)
            .force_path_style(true)
            .credentials_provider(Credentials::new(&access_key, &secret_key, None, None, "tests"))
            // Not every store knows those that nobody asked for.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Some(Self {
            endpoint,
            bucket: needed("BUCKET"),
            region,
            access_key,
            secret_key,
            prefix: unique_prefix(),
            client: Client::from_conf(config),
            runtime: runtime.expect("start a thread for the object store"),
        })
    }

    /// Where it is: `http://HOST:PORT`. Requests are in path style.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The bucket.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The region to sign for.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The public half of the credentials.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret half of the credentials.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// What all keys begin with, in the bucket; it ends with a '/'.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// All keys, in the order of their bytes.
    ///
    /// # Panics
    /// As all of the following, if the store refuses or does not answer.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let pages = self.list();
        let keys = pages.iter().flat_map(ListObjectsV2Output::contents).filter_map(|object| object.key());
        keys.filter_map(|key| Some(key.strip_prefix(&self.prefix)?.to_owned())).collect()
    }

    /// The bytes of an object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Bytes> {
        let get = self.client.get_object().bucket(&self.bucket).key(self.full(key));
        self.runtime.block_on(async {
            match get.send().await {
                Ok(answer) => Some(answer.body.collect().await.expect("read an object").into_bytes()),
                Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => None,
                Err(error) => panic!("get {key}: {error:?}"),
            }
        })
    }

    /// What is known of an object beside its bytes.
    #[must_use]
    pub fn info(&self, key: &str) -> Option<ObjectInfo> {
        let head = self.client.head_object().bucket(&self.bucket).key(self.full(key));
        match self.runtime.block_on(head.send()) {
            Ok(answer) => Some(ObjectInfo {
                length: answer.content_length().and_then(|length| u64::try_from(length).ok())?,
                etag: answer.e_tag().unwrap_or_default().trim_matches('"').to_owned(),
                content_type: answer.content_type().map(str::to_owned),
            }),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => None,
            Err(error) => panic!("look at {key}: {error:?}"),
        }
    }

    /// Stores an object, in place of the one that may be there.
    pub fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        let put = self.client.put_object().bucket(&self.bucket).key(self.full(key));
        let sent = self.runtime.block_on(put.body(ByteStream::from(bytes.into())).send());
        sent.unwrap_or_else(|error| panic!("put {key}: {error:?}"));
    }

    /// Removes an object, whether there is one or not.
    pub fn remove(&self, key: &str) {
        let delete = self.client.delete_object().bucket(&self.bucket).key(self.full(key));
        self.runtime.block_on(delete.send()).unwrap_or_else(|error| panic!("remove {key}: {error:?}"));
    }

    /// Begins a multipart upload that nobody ends.
    pub fn begin_upload(&self, key: &str) {
        let begin = self.client.create_multipart_upload().bucket(&self.bucket).key(self.full(key));
        self.runtime.block_on(begin.send()).unwrap_or_else(|error| panic!("begin {key}: {error:?}"));
    }

    /// The open multipart uploads, a thousand at most.
    #[must_use]
    pub fn uploads(&self) -> Vec<OpenUpload> {
        let listed = self.list_uploads().unwrap_or_else(|error| panic!("list uploads: {error:?}"));
        let uploads = listed.uploads().iter().filter_map(|upload| {
            let key = upload.key()?.strip_prefix(&self.prefix)?.to_owned();
            Some(OpenUpload {
                parts: self.parts(&key, upload.upload_id()?),
                key,
                id: upload.upload_id()?.to_owned(),
            })
        });
        uploads.collect()
    }

    fn parts(&self, key: &str, id: &str) -> Vec<(i32, u64)> {
        let list = self.client.list_parts().bucket(&self.bucket).key(self.full(key)).upload_id(id);
        // One that was completed or aborted just now has none.
        let Ok(listed) = self.runtime.block_on(list.send()) else { return Vec::new() };
        let parts = listed.parts().iter();
        parts.filter_map(|part| Some((part.part_number()?, u64::try_from(part.size()?).ok()?))).collect()
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The list of all objects, page by page.
    fn pages(&self) -> Result<Vec<ListObjectsV2Output>, Box<dyn Error>> {
        let (mut pages, mut from) = (Vec::new(), None);
        loop {
            let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(&self.prefix);
            let page = self.runtime.block_on(list.set_continuation_token(from).send())?;
            from = page.next_continuation_token().map(str::to_owned);
            pages.push(page);
            if from.is_none() {
                return Ok(pages);
            }
        }
    }

    fn list(&self) -> Vec<ListObjectsV2Output> {
        self.pages().unwrap_or_else(|error| panic!("list objects: {error:?}"))
    }

    fn list_uploads(&self) -> Result<ListMultipartUploadsOutput, Box<dyn Error>> {
        let list = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(&self.prefix);
        Ok(self.runtime.block_on(list.send())?)
    }

    /// Removes everything.
    fn clear(&self) -> Result<(), Box<dyn Error>> {
        let pages = self.pages()?;
        for object in pages.iter().flat_map(ListObjectsV2Output::contents) {
            let delete = self.client.delete_object().bucket(&self.bucket).set_key(object.key.clone());
            self.runtime.block_on(delete.send())?;
        }
        for upload in self.list_uploads()?.uploads() {
            let abort = self.client.abort_multipart_upload().bucket(&self.bucket);
            let abort = abort.set_key(upload.key.clone()).set_upload_id(upload.upload_id.clone());
            // One that ends by itself meanwhile is not found.
            let _ = self.runtime.block_on(abort.send());
        }
        Ok(())
    }
}

impl Drop for OutsideStore {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            let (bucket, prefix) = (&self.bucket, &self.prefix);
            // Two panics at once would hide the first one.
            assert!(std::thread::panicking(), "left behind in the bucket {bucket}: {prefix}: {error:?}");
        }
    }
}

/// A prefix that no other test has, also not of another run.
fn unique_prefix() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("test-{}-{:x}/", std::process::id(), since.as_nanos())
}
