//! Lists of objects, in the order of the bytes of their keys.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use s3s::dto::{
    self, CommonPrefix, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output,
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
}

impl Service {
    /// ListObjectsV2.
    pub(super) fn list(&self, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
        let most = most(input.max_keys)?;
        let bucket = self.store.bucket(&input.bucket)?.read();
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let delimiter = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
        let token = input.continuation_token.as_deref();
        let after = token.or(input.start_after.as_deref());
        let page = page(&bucket.objects, prefix, delimiter, after, token, most);
        Ok(ListObjectsV2Output {
            key_count: i32::try_from(page.len()).ok(),
            max_keys: i32::try_from(most).ok(),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            contents: Some(page.contents),
            common_prefixes: Some(page.prefixes),
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            continuation_token: input.continuation_token,
            start_after: input.start_after,
            ..ListObjectsV2Output::default()
        })
    }

    /// ListObjects, for clients older than its successor.
    pub(super) fn list_as_of_old(&self, input: ListObjectsInput) -> S3Result<ListObjectsOutput> {
        let marker = input.marker.clone();
        // A marker may be a common prefix, as a token may.
        let page = self.list(ListObjectsV2Input { continuation_token: marker.clone(), ..input.into() })?;
        Ok(ListObjectsOutput {
            name: page.name,
            prefix: page.prefix,
            delimiter: page.delimiter,
            marker,
            max_keys: page.max_keys,
            is_truncated: page.is_truncated,
            next_marker: page.next_continuation_token,
            contents: page.contents,
            common_prefixes: page.common_prefixes,
            ..ListObjectsOutput::default()
        })
    }
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
            page.next = last.map(str::to_owned);
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
