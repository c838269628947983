//! Lists of whatever is in the bucket, under whole keys: not only of what the pool has made.

use std::borrow::Cow;
use std::time::SystemTime;

use aws_sdk_s3::types::EncodingType;

use super::error::classify;
use super::{S3Error, S3Pool, Stored};

/// What ends a directory's part of a key.
pub const SEPARATOR: char = '/';

/// What is to be listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Only keys after this one.
    pub after: Option<String>,
    /// Keys that have a [`SEPARATOR`] behind the prefix are told once, as a directory.
    pub by_directory: bool,
}

/// An object of the bucket, under its whole key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its key.
    pub key: String,
    /// What it is.
    pub stored: Stored,
    /// When it was made, by the endpoint's clock.
    pub modified: SystemTime,
}

/// A page (at most 1000 entries) of what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Objects, in order of their keys.
    pub objects: Vec<Found>,
    /// Directories with all that is above them, in order, each with a [`SEPARATOR`] at its end.
    pub directories: Vec<String>,
    /// Entries whose keys are no text, which cannot be asked for.
    pub unreadable: u64,
    /// What goes on with the next page; `None`: that was all.
    pub next: Option<String>,
}

impl S3Pool {
    /// Lists keys of the bucket in their order. `page`: [`Findings::next`] of the page before.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub async fn browse(&self, span: &Span, page: Option<String>) -> Result<Findings, S3Error> {
        let first = page.is_none();
        let answer = self
            .client
            .list_objects_v2()
            .bucket(&self.settings.bucket)
            .prefix(&span.prefix)
            .set_start_after(span.after.clone().filter(|_| first))
            .set_continuation_token(page.clone())
            .set_delimiter(span.by_directory.then(|| SEPARATOR.to_string()))
            // There are keys that XML has no way to say.
            .encoding_type(EncodingType::Url)
            .send()
            .await
            .map_err(|error| classify(&error))?;
        let encoded = answer.encoding_type() == Some(&EncodingType::Url);
        let mut findings = Findings::default();
        for object in answer.contents() {
            let size = object.size().and_then(|size| u64::try_from(size).ok());
            let (Some(key), Some(size)) = (object.key().and_then(|key| decoded(key, encoded)), size) else {
                findings.unreadable += 1;
                continue;
            };
            // What is not below the prefix was not asked for, whatever the endpoint says.
            if key.starts_with(&span.prefix) {
                let etag = self.etag_for_use(object.e_tag().unwrap_or_default());
                let modified = object.last_modified().and_then(|time| SystemTime::try_from(*time).ok());
                let modified = modified.unwrap_or(SystemTime::UNIX_EPOCH);
                findings.objects.push(Found { key, stored: Stored { etag, size }, modified });
            }
        }
        for directory in answer.common_prefixes() {
            match directory.prefix().and_then(|prefix| decoded(prefix, encoded)) {
                Some(directory) if directory.starts_with(&span.prefix) => {
                    findings.directories.push(directory);
                }
                Some(_) => {}
                None => findings.unreadable += 1,
            }
        }
        if answer.is_truncated() == Some(true) {
            findings.next = answer.next_continuation_token().map(str::to_owned);
            if findings.next.is_none() || findings.next == page {
                return Err(S3Error::Unavailable("a list does not go on".to_owned()));
            }
        }
        Ok(findings)
    }

    /// Whether two ETags are the same, however they are written.
    pub fn is_same_etag(&self, one: &str, other: &str) -> bool {
        self.etag_for_use(one) == self.etag_for_use(other)
    }
}

/// A key as it is; `None`: it is no text.
fn decoded(key: &str, encoded: bool) -> Option<String> {
    if !encoded {
        return Some(key.to_owned());
    }
    // As forms are: a space is a plus sign.
    let spaced = key.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_if_they_are_encoded() {
        assert_eq!(decoded("a%2Fb+c%2B%00%C3%BC", true).as_deref(), Some("a/b c+\0ü"));
        assert_eq!(decoded("100%+", false).as_deref(), Some("100%+"));
        assert_eq!(decoded("%FF", true), None);
    }
}
