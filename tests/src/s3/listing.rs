//! Lists of objects, in the order of the bytes of their keys.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use s3s::dto::{
    self, CommonPrefix, EncodingType, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output,
};
use s3s::{S3Result, s3_error};

use super::service::Service;
use super::store::{Object, strong};

/// The most entries of one answer.
const MAX_KEYS: i32 = 1000;

/// One page of a list.
#[derive(Default)]
struct Page {
    contents: Vec<dto::Object>,
    prefixes: Vec<CommonPrefix>,
    /// The last entry, if more follow: what the next page continues after.
    next: Option<String>,
}

impl Page {
    fn len(&self) -> usize {
        self.contents.len() + self.prefixes.len()
    }

    /// As `encoding-type=url` wants it.
    fn encode(&mut self) {
        let keys = self.contents.iter_mut().map(|object| &mut object.key);
        let prefixes = self.prefixes.iter_mut().map(|prefix| &mut prefix.prefix);
        keys.chain(prefixes).flatten().for_each(|key| *key = encode(key));
    }
}

impl Service {
    /// ListObjectsV2.
    pub(super) fn list(&self, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
        let most = most(input.max_keys)?;
        let bucket = self.store.bucket(&input.bucket)?.read();
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let delimiter = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
        let token = input.continuation_token.as_deref().map(key_of).transpose()?;
        let token = token.as_deref();
        let after = token.or(input.start_after.as_deref());
        let mut page = page(&bucket.objects, prefix, delimiter, after, token, most);
        let encoded = input.encoding_type.as_ref().is_some_and(|how| how.as_str() == EncodingType::URL);
        if encoded {
            page.encode();
        }
        let shown = |text: Option<String>| if encoded { text.map(|text| encode(&text)) } else { text };
        Ok(ListObjectsV2Output {
            encoding_type: input.encoding_type,
            key_count: i32::try_from(page.len()).ok(),
            max_keys: i32::try_from(most).ok(),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            contents: Some(page.contents),
            common_prefixes: Some(page.prefixes),
            name: Some(input.bucket),
            prefix: shown(input.prefix),
            delimiter: shown(input.delimiter),
            continuation_token: input.continuation_token,
            start_after: shown(input.start_after),
            ..ListObjectsV2Output::default()
        })
    }

    /// ListObjects, for clients older than its successor.
    pub(super) fn list_as_of_old(&self, input: ListObjectsInput) -> S3Result<ListObjectsOutput> {
        let marker = input.marker.clone();
        // A marker may be a common prefix, as a token may.
        let token = marker.as_deref().map(encode);
        let page = self.list(ListObjectsV2Input { continuation_token: token, ..input.into() })?;
        Ok(ListObjectsOutput {
            name: page.name,
            prefix: page.prefix,
            delimiter: page.delimiter,
            marker,
            max_keys: page.max_keys,
            is_truncated: page.is_truncated,
            next_marker: page.next_continuation_token.as_deref().map(key_of).transpose()?,
            contents: page.contents,
            common_prefixes: page.common_prefixes,
            ..ListObjectsOutput::default()
        })
    }
}

/// As in a form: S3 says a space as a plus sign.
fn encode(key: &str) -> String {
    urlencoding::encode(key).replace("%20", "+")
}

/// The key in a token.
fn key_of(token: &str) -> S3Result<String> {
    let decoded = urlencoding::decode(&token.replace('+', " ")).map(std::borrow::Cow::into_owned);
    decoded.map_err(|_| s3_error!(InvalidArgument))
}

/// How many entries an answer may have.
pub(super) fn most(asked: Option<i32>) -> S3Result<usize> {
    usize::try_from(asked.unwrap_or(MAX_KEYS).min(MAX_KEYS)).map_err(|_| s3_error!(InvalidArgument))
}

fn page(
    objects: &BTreeMap<String, Arc<Object>>,
    prefix: &str,
    delimiter: Option<&str>,
    after: Option<&str>,
    token: Option<&str>,
    most: usize,
) -> Page {
    let mut page = Page::default();
    let mut last: Option<&str> = None;
    let start = match after {
        Some(after) if after >= prefix => Excluded(after),
        _ => Included(prefix),
    };
    let keys = objects.range::<str, _>((start, Unbounded)).take_while(|(key, _)| key.starts_with(prefix));
    for (key, object) in keys {
        let rolled_up = delimiter.and_then(|delimiter| common_prefix(key, prefix, delimiter));
        let entry = rolled_up.unwrap_or(key);
        // Keys of a common prefix that is here already, or that the page before ended with.
        if rolled_up.is_some() && (last == rolled_up || token == rolled_up) {
            continue;
        }
        if page.len() == most {
            // There are keys that XML has no way to say.
            page.next = last.map(encode);
            break;
        }
        match rolled_up {
            Some(prefix) => page.prefixes.push(CommonPrefix { prefix: Some(prefix.to_owned()) }),
            None => page.contents.push(entry_of(key, object)),
        }
        last = Some(entry);
    }
    page
}

/// The part of a key up to the first delimiter after the prefix.
fn common_prefix<'a>(key: &'a str, prefix: &str, delimiter: &str) -> Option<&'a str> {
    let at = key[prefix.len()..].find(delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

fn entry_of(key: &str, object: &Object) -> dto::Object {
    dto::Object {
        key: Some(key.to_owned()),
        size: Some(object.content.length().cast_signed()),
        e_tag: Some(strong(&object.etag)),
        last_modified: Some(object.modified.into()),
        ..dto::Object::default()
    }
}
