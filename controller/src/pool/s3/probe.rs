//! Finding out what an endpoint can, by trying: what it says about itself is not asked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sdk_s3::config::{Config, SharedCredentialsProvider};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::BucketVersioningStatus;
use hyper::Method;

use super::download::bare;
use super::error::classify;
use super::multipart::say_empty;
use super::presign::signed_get;
use super::upload::random_hex;
use super::{Capabilities, Known, S3Error, S3Pool, plain};
use crate::resource::{EtagForm, Versioning};

/// Farthest that clocks may be apart; endpoints refuse what is signed at another time.
const SKEW_MAX: u64 = 300;
/// What the probe's object holds.
const CONTENT: &[u8] = b"vmds";
/// A CRC-32 that is not that of the content, in base64.
const WRONG_CHECKSUM: &str = "AAAAAA==";
/// An ETag that no object has.
const NO_ETAG: &str = "\"00000000000000000000000000000000\"";

/// What the key of an object begins with that an endpoint is tried with.
pub const PROBE_KEY: &str = ".vmds-probe-";

impl S3Pool {
    /// Asks the bucket what it can: writes, reads and deletes an object of a name of its own.
    ///
    /// # Errors
    /// A pool cannot work there: a sentence for people.
    pub async fn probe(&self) -> Result<Capabilities, S3Error> {
        self.try_reaching().await?;
        let unique = random_hex().map_err(S3Error::Staging)?;
        let key = format!("{PROBE_KEY}{unique}");
        let written = self.try_writing(&key).await;
        let conditional_put = self.blame_clock(written)?;
        let found = self.try_rest(&key, conditional_put).await;
        let deleted = self.delete_one(&key).await;
        let found = self.blame_clock(found)?;
        deleted.map_err(|error| because("objects cannot be deleted", error))?;
        if self.head(&key).await?.is_some() {
            return Err(S3Error::Invalid("the endpoint says it deletes objects and does not".to_owned()));
        }
        *self.known.write() = Known { capabilities: Some(Arc::new(found.clone())), probed: true };
        Ok(found)
    }

    /// Takes over what a probe of a controller before this one has found, until there is one of this.
    pub fn assume(&self, capabilities: Capabilities) {
        let mut known = self.known.write();
        if !known.probed {
            known.capabilities = Some(Arc::new(capabilities));
        }
    }

    /// Whether there was a probe since the pool was opened.
    pub fn is_probed(&self) -> bool {
        self.known.read().probed
    }

    /// Whether the endpoint still answers and knows us; costs one request.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub async fn check(&self) -> Result<(), S3Error> {
        self.try_reaching().await?;
        let looked = self.head(".vmds-probe").await.map(drop);
        self.blame_clock(looked)
    }

    /// Clocks that are apart are the reason for whatever else went wrong.
    fn blame_clock<T>(&self, found: Result<T, S3Error>) -> Result<T, S3Error> {
        match self.clock.skew_seconds() {
            Some(skew) if skew.unsigned_abs() > SKEW_MAX => Err(S3Error::Invalid(format!(
                "the clocks of the endpoint and of this host are {} seconds apart, which is more than {SKEW_MAX}; \
                 set the clock of this host",
                skew.unsigned_abs()
            ))),
            _ => found,
        }
    }

    /// An endpoint where nobody answers is not asked again and again: that takes long. And where TLS is spoken, it is
    /// found out here, and told apart, who answers.
    async fn try_reaching(&self) -> Result<(), S3Error> {
        self.connect_here().await.map(drop)
    }

    async fn try_rest(&self, key: &str, conditional_put: bool) -> Result<Capabilities, S3Error> {
        let etag = self.try_reading(key).await?;
        let mut can = Capabilities { conditional_put, ..Capabilities::default() };
        (can.conditional_get, can.etags) = self.try_conditions(key, &etag).await?;
        can.checksums = self.try_checksum(key).await;
        can.multipart_copy = self.try_copying(key).await;
        can.versioning = self.try_versioning().await;
        can.clock_skew_seconds = self.clock.skew_seconds().unwrap_or_default();
        can.notes = self.notes(key, &can).await;
        Ok(can)
    }

    /// Writes the object, and tries to write it again as if it were new; whether that was refused.
    async fn try_writing(&self, key: &str) -> Result<bool, S3Error> {
        let write = async |condition: Option<String>| {
            let put = self.client.put_object().bucket(&self.settings.bucket).key(self.settings.full_key(key));
            let put = put.set_if_none_match(condition).body(ByteStream::from_static(CONTENT));
            let sent = put.customize().disable_payload_signing().send().await;
            sent.map(drop).map_err(|error| classify(&error))
        };
        let new = || Some("*".to_owned());
        match write(new()).await {
            Ok(()) => Ok(matches!(write(new()).await, Err(S3Error::Changed | S3Error::Unavailable(_)))),
            Err(S3Error::Unsupported(_) | S3Error::Changed) => write(None).await.map(|()| false),
            Err(error) => Err(error),
        }
        .map_err(|error| because("objects cannot be written", error))
    }

    /// Reads a range of the object; its ETag.
    async fn try_reading(&self, key: &str) -> Result<String, S3Error> {
        let get = self.client.get_object().bucket(&self.settings.bucket).key(self.settings.full_key(key));
        let answer = get.range("bytes=1-2").send().await;
        let answer = answer.map_err(|error| because("objects cannot be read", classify(&error)))?;
        let etag = answer.e_tag().map(|etag| bare(etag).to_owned()).filter(|etag| !etag.is_empty());
        let ranged = answer.content_range() == Some("bytes 1-2/4");
        let bytes = answer.body.collect().await.map(aws_sdk_s3::primitives::AggregatedBytes::into_bytes);
        if !ranged || !bytes.is_ok_and(|bytes| bytes[..] == CONTENT[1..=2]) {
            return Err(S3Error::Invalid(
                "the endpoint does not answer with the range it is asked for".into(),
            ));
        }
        etag.ok_or_else(|| S3Error::Invalid("the endpoint gives objects no ETag".to_owned()))
    }

    /// Whether `If-Match` is honoured on reading, and how ETags are to be written there.
    async fn try_conditions(&self, key: &str, bare: &str) -> Result<(bool, EtagForm), S3Error> {
        let read_if = async |etag: &str| {
            let get = self.client.get_object().bucket(&self.settings.bucket).key(self.settings.full_key(key));
            let answer = get.if_match(etag).send().await;
            answer.map(drop).map_err(|error| classify(&error))
        };
        let form = match read_if(&format!("\"{bare}\"")).await {
            Ok(()) => EtagForm::Quoted,
            Err(S3Error::Changed) => match read_if(bare).await {
                Ok(()) => EtagForm::Unquoted,
                Err(error) => return Err(because("an object cannot be read by its ETag", error)),
            },
            Err(error) => return Err(because("an object cannot be read by its ETag", error)),
        };
        Ok((matches!(read_if(NO_ETAG).await, Err(S3Error::Changed)), form))
    }

    /// Whether an object that does not fit its checksum is refused.
    async fn try_checksum(&self, key: &str) -> bool {
        let put = self.client.put_object().bucket(&self.settings.bucket).key(self.settings.full_key(key));
        let put = put.checksum_crc32(WRONG_CHECKSUM).body(ByteStream::from_static(CONTENT));
        let sent = put.customize().disable_payload_signing().send().await;
        matches!(sent.map_err(|error| classify(&error)), Err(S3Error::Invalid(_)))
    }

    /// Whether a part of a new object can be copied from another one.
    async fn try_copying(&self, key: &str) -> bool {
        let (bucket, from) = (&self.settings.bucket, self.settings.full_key(key));
        let to = format!("{from}-copy");
        let begun = self.client.create_multipart_upload().bucket(bucket).key(&to).send().await;
        let Some(id) = begun.ok().and_then(|begun| begun.upload_id) else { return false };
        let part = self.client.upload_part_copy().bucket(bucket).key(&to).upload_id(&id).part_number(1);
        let part = part.copy_source(format!("{bucket}/{from}")).customize().mutate_request(say_empty);
        let copied = part.send().await;
        // What stays is found by the sweep of stale uploads.
        let _ = self.abort(&to, &id).await;
        copied.is_ok()
    }

    async fn try_versioning(&self) -> Versioning {
        let asked = self.client.get_bucket_versioning().bucket(&self.settings.bucket).send().await;
        match asked.as_ref().map(|answer| answer.status()) {
            Ok(Some(BucketVersioningStatus::Enabled)) => Versioning::On,
            Ok(Some(_)) => Versioning::Suspended,
            Ok(None) => Versioning::Off,
            Err(_) => Versioning::Unknown,
        }
    }

    /// What the operator should know.
    async fn notes(&self, key: &str, can: &Capabilities) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |applies: bool, sentence: &str| {
            if applies {
                notes.push(sentence.to_owned());
            }
        };
        note(
            self.reads_unsigned(key).await,
            "the endpoint does not check signatures: whoever reaches it can read and change everything in it",
        );
        let (altered, expired) = self.reads_with_bad_addresses(key).await;
        note(altered, "the endpoint accepts signed addresses that were altered");
        note(expired, "the endpoint accepts signed addresses that have expired");
        note(
            !can.conditional_put,
            "the endpoint ignores If-None-Match: it would replace an object by another",
        );
        note(
            !can.conditional_get,
            "the endpoint ignores If-Match: a reader cannot insist on an object's ETag",
        );
        note(
            can.versioning == Versioning::On,
            "the bucket keeps old versions: deleted files still take space",
        );
        let list = self.client.list_objects_v2().bucket(&self.settings.bucket).prefix(&self.settings.prefix);
        let listed = list.max_keys(1).send().await.is_ok();
        note(!listed, "objects cannot be listed: what a crash leaves behind will not be found");
        notes
    }

    /// Whether somebody who knows the key's name but not its secret may read.
    async fn reads_unsigned(&self, key: &str) -> bool {
        let Ok(known) = self.keyring.current().await else { return false };
        let wrong = Credentials::new(known.access_key_id(), "not the secret", None, None, "probe");
        let wrong = Config::builder().credentials_provider(SharedCredentialsProvider::new(wrong));
        let get = self.client.get_object().bucket(&self.settings.bucket).key(self.settings.full_key(key));
        get.customize().config_override(wrong).send().await.is_ok()
    }

    /// Whether signed addresses work that were altered, and that have expired. Asked as a VMDS asks.
    async fn reads_with_bad_addresses(&self, key: &str) -> (bool, bool) {
        let Ok(credentials) = self.keyring.current().await else { return (false, false) };
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        let sign = |at, name: &str| {
            signed_get(&self.settings, credentials.clone(), name, Vec::new(), at, Duration::from_secs(60))
        };
        let altered = match (sign(now, "another-object"), sign(now, key)) {
            (Ok(other), Ok(this)) => {
                let query = other.path_and_query.split_once('?').map_or("", |(_, query)| query);
                let path = this.path_and_query.split('?').next().unwrap_or_default().to_owned();
                self.reads(&format!("{path}?{query}")).await
            }
            _ => false,
        };
        let expired = match sign(now.checked_sub(hour).unwrap_or(now), key) {
            Ok(expired) => self.reads(&expired.path_and_query).await,
            Err(_) => false,
        };
        (altered, expired)
    }

    async fn reads(&self, path_and_query: &str) -> bool {
        let asked = async {
            let stream = self.connect_here().await?;
            plain::exchange(stream, &self.settings.endpoint.host, Method::GET, path_and_query, &[]).await
        };
        let answer = tokio::time::timeout(self.settings.patience, asked).await;
        answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.body[..] == *CONTENT))
    }
}

/// The same error, as a sentence about what it prevents; what may pass stays what may pass.
fn because(prevented: &str, error: S3Error) -> S3Error {
    match error {
        passing if passing.may_pass() => passing,
        S3Error::Credentials(sentence) => S3Error::Credentials(sentence),
        other => S3Error::Invalid(format!("{prevented}: {other}")),
    }
}
