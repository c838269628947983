//! What was asked of the server: one record per request, and counts by kind.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderName};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use parking_lot::Mutex;

/// How many requests are remembered; the oldest are forgotten first, the counts never.
const MAX_RECORDS: usize = 100_000;
/// What is never recorded, as it would let a reader sign.
const SECRETS: [&str; 2] = ["x-amz-signature", "x-amz-security-token"];

/// What a request asks for, by the name S3 gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are S3's")]
pub enum RequestKind {
    GetObject,
    HeadObject,
    PutObject,
    DeleteObject,
    DeleteObjects,
    ListObjectsV2,
    HeadBucket,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListMultipartUploads,
    ListParts,
    /// Anything else; the server refuses it.
    Other,
}

/// A request as it arrived, whatever became of it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What it asked for.
    pub kind: RequestKind,
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// The bucket; empty for none.
    pub bucket: String,
    /// The key, decoded; empty for none.
    pub key: String,
    /// The query in its order, decoded, without signatures and tokens.
    pub query: Vec<(String, String)>,
    /// The headers, without `Authorization` and tokens.
    pub headers: HeaderMap,
    /// The access key it claims to be signed with.
    pub access_key: Option<String>,
    /// Whether it came with a presigned URL rather than with a signed header.
    pub presigned: bool,
    /// The connection it came on: the first is 1.
    pub connection: u64,
    /// The status of the answer; none while there is none, or if it was never sent.
    pub status: Option<u16>,
}

impl Recorded {
    /// A header's value, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A parameter of the query.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(its, _)| its == name).map(|(_, value)| value.as_str())
    }

    /// The bytes a `Range: bytes=first-last` asks for; none for a request without one, or with another form of it.
    #[must_use]
    pub fn range(&self) -> Option<RangeInclusive<u64>> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some(first.parse().ok()?..=last.parse().ok()?)
    }

    /// Reads a request's head.
    pub(super) fn of(head: &Parts, connection: u64) -> Self {
        let path = decoded(head.uri.path());
        let path = path.strip_prefix('/').unwrap_or(&path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let all = pairs(head.uri.query().unwrap_or_default());
        let credential = all.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-amz-credential"));
        let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let signer = credential
            .map(|(_, value)| value.as_str())
            .or_else(|| authorization?.split_once("Credential=").map(|(_, rest)| rest));
        Self {
            kind: kind(head, !key.is_empty(), &all),
            method: head.method.to_string(),
            access_key: signer.and_then(|signer| signer.split('/').next()).map(str::to_owned),
            presigned: credential.is_some(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            query: all.into_iter().filter(|(name, _)| !is_secret(name)).collect(),
            headers: without_secrets(&head.headers),
            connection,
            status: None,
        }
    }
}

fn kind(head: &Parts, object: bool, query: &[(String, String)]) -> RequestKind {
    let has = |name: &str| query.iter().any(|(its, _)| its == name);
    let copies = head.headers.contains_key("x-amz-copy-source");
    match (&head.method, object) {
        (&Method::GET, true) if has("uploadId") => RequestKind::ListParts,
        (&Method::GET, true) => RequestKind::GetObject,
        (&Method::GET, false) if has("uploads") => RequestKind::ListMultipartUploads,
        (&Method::GET, false) if has("list-type") => RequestKind::ListObjectsV2,
        (&Method::HEAD, true) => RequestKind::HeadObject,
        (&Method::HEAD, false) => RequestKind::HeadBucket,
        (&Method::PUT, true) if has("uploadId") && copies => RequestKind::UploadPartCopy,
        (&Method::PUT, true) if has("uploadId") => RequestKind::UploadPart,
        (&Method::PUT, true) if !copies => RequestKind::PutObject,
        (&Method::POST, true) if has("uploads") => RequestKind::CreateMultipartUpload,
        (&Method::POST, true) if has("uploadId") => RequestKind::CompleteMultipartUpload,
        (&Method::POST, false) if has("delete") => RequestKind::DeleteObjects,
        (&Method::DELETE, true) if has("uploadId") => RequestKind::AbortMultipartUpload,
        (&Method::DELETE, true) => RequestKind::DeleteObject,
        _ => RequestKind::Other,
    }
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let split = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    };
    query.split('&').filter(|pair| !pair.is_empty()).map(split).collect()
}

/// The text without percent signs, or as it stands if it is no such text.
fn decoded(text: &str) -> String {
    urlencoding::decode(text).map_or_else(|_| text.to_owned(), |text| text.into_owned())
}

fn is_secret(name: &str) -> bool {
    SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

fn without_secrets(headers: &HeaderMap) -> HeaderMap {
    let open = |(name, _): &(&HeaderName, _)| *name != AUTHORIZATION && !is_secret(name.as_str());
    headers.iter().filter(open).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// All requests of a server. Clones are the same log.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Records>>);

#[derive(Default)]
struct Records {
    requests: VecDeque<Recorded>,
    /// The number of the oldest request still here.
    first: u64,
    counts: BTreeMap<RequestKind, u64>,
}

impl Log {
    /// Records a request, and gives its number.
    pub(super) fn arrived(&self, request: Recorded) -> u64 {
        let mut records = self.0.lock();
        *records.counts.entry(request.kind).or_default() += 1;
        records.requests.push_back(request);
        if records.requests.len() > MAX_RECORDS {
            records.requests.pop_front();
            records.first += 1;
        }
        records.first + records.requests.len() as u64 - 1
    }

    /// Records the status of an answer that is about to be sent.
    pub(super) fn answered(&self, number: u64, status: u16) {
        let mut records = self.0.lock();
        let index = number.checked_sub(records.first).and_then(|index| usize::try_from(index).ok());
        if let Some(request) = index.and_then(|index| records.requests.get_mut(index)) {
            request.status = Some(status);
        }
    }

    pub(super) fn requests(&self) -> Vec<Recorded> {
        self.0.lock().requests.iter().cloned().collect()
    }

    pub(super) fn count(&self, kind: RequestKind) -> u64 {
        self.0.lock().counts.get(&kind).copied().unwrap_or(0)
    }

    /// Forgets all requests and begins to count again.
    pub(super) fn forget(&self) {
        let mut records = self.0.lock();
        records.first += records.requests.len() as u64;
        records.requests.clear();
        records.counts.clear();
    }
}
