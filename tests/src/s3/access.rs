//! Who may do what: the keys that signatures are verified with, and the rule that decides for every request.

use std::sync::Arc;

use parking_lot::RwLock;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{Credentials, S3Auth, SecretKey};
use s3s::dto::{
    CopySource, ListMultipartUploadsInput, ListObjectsInput, ListObjectsV2Input, UploadPartCopyInput,
};
use s3s::path::S3Path;
use s3s::{S3Request, S3Result, s3_error};

use super::options::{Need, User};

/// The users of a server, who may be changed while it runs. Clones share them.
#[derive(Clone)]
pub(super) struct Users(Arc<RwLock<Vec<User>>>);

impl Users {
    pub(super) fn new(users: Vec<User>) -> Self {
        Self(Arc::new(RwLock::new(users)))
    }

    /// Adds a user, or replaces who has the same access key.
    pub(super) fn set(&self, user: User) {
        let mut users = self.0.write();
        users.retain(|other| other.access_key() != user.access_key());
        users.push(user);
    }

    /// Removes a user: all they signed is refused from now on.
    pub(super) fn remove(&self, access_key: &str) {
        self.0.write().retain(|user| user.access_key() != access_key);
    }

    /// Whether who signed may do this to every key of the bucket that begins with `prefix`.
    ///
    /// # Errors
    /// `AccessDenied`, also for what does not exist: who may not look learns nothing.
    pub(super) fn check(
        &self,
        signed_by: Option<&Credentials>,
        need: Need,
        bucket: &str,
        prefix: &str,
    ) -> S3Result<()> {
        self.allow(signed_by, |user| user.may_touch(need, bucket, prefix))
    }

    fn allow(&self, signed_by: Option<&Credentials>, rule: impl Fn(&User) -> bool) -> S3Result<()> {
        let users = self.0.read();
        let user = signed_by.and_then(|by| users.iter().find(|user| user.access_key() == by.access_key));
        if user.is_some_and(rule) { Ok(()) } else { Err(s3_error!(AccessDenied)) }
    }
}

#[async_trait::async_trait]
impl S3Auth for Users {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let users = self.0.read();
        let user = users.iter().find(|user| user.access_key() == access_key);
        user.map(|user| user.secret_key().into()).ok_or_else(|| s3_error!(InvalidAccessKeyId))
    }
}

#[async_trait::async_trait]
impl S3Access for Users {
    /// The rule for what the path alone says. Lists, copies and deletions in bulk say more; they are decided in the
    /// functions below and in [`super::objects`].
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        refuse_unsigned_headers(cx)?;
        let bucket = match cx.s3_path() {
            S3Path::Root => return Err(s3_error!(AccessDenied)),
            S3Path::Bucket { bucket } => bucket,
            S3Path::Object { bucket, key } => {
                let need = match cx.s3_op().name() {
                    "GetObject" | "HeadObject" | "ListParts" => Need::Read,
                    _ => Need::Write,
                };
                return Users::check(self, cx.credentials(), need, bucket, key);
            }
        };
        self.allow(cx.credentials(), |user| user.may_see(bucket))
    }

    async fn list_objects(&self, req: &mut S3Request<ListObjectsInput>) -> S3Result<()> {
        let prefix = req.input.prefix.as_deref().unwrap_or_default();
        Users::check(self, req.credentials.as_ref(), Need::Read, &req.input.bucket, prefix)
    }

    async fn list_objects_v2(&self, req: &mut S3Request<ListObjectsV2Input>) -> S3Result<()> {
        let prefix = req.input.prefix.as_deref().unwrap_or_default();
        Users::check(self, req.credentials.as_ref(), Need::Read, &req.input.bucket, prefix)
    }

    async fn list_multipart_uploads(&self, req: &mut S3Request<ListMultipartUploadsInput>) -> S3Result<()> {
        let prefix = req.input.prefix.as_deref().unwrap_or_default();
        Users::check(self, req.credentials.as_ref(), Need::Read, &req.input.bucket, prefix)
    }

    async fn upload_part_copy(&self, req: &mut S3Request<UploadPartCopyInput>) -> S3Result<()> {
        let CopySource::Bucket { bucket, key, .. } = &req.input.copy_source else {
            return Err(s3_error!(NotImplemented));
        };
        Users::check(self, req.credentials.as_ref(), Need::Read, bucket, key)
    }
}

/// Refuses a presigned URL that was sent with an `x-amz-` header it was not signed with, as S3 does. `s3s` does not:
/// it would let the holder of a URL for an empty PUT turn it into a copy of any object its signer may read.
fn refuse_unsigned_headers(cx: &S3AccessContext<'_>) -> S3Result<()> {
    let query = cx.uri().query().unwrap_or_default();
    let Some(signed) = query.split('&').find_map(|pair| pair.strip_prefix("X-Amz-SignedHeaders=")) else {
        return Ok(());
    };
    let signed = urlencoding::decode(signed).map_err(|_| s3_error!(InvalidArgument))?;
    let is_signed = |name: &str| signed.split(';').any(|other| other == name);
    let free = cx.headers().keys().map(|name| name.as_str()).find(|name| {
        // The hash of the body is verified against the body itself.
        name.starts_with("x-amz-") && *name != "x-amz-content-sha256" && !is_signed(name)
    });
    match free {
        Some(name) => Err(s3_error!(AccessDenied, "a header that was not signed: {name}")),
        None => Ok(()),
    }
}
