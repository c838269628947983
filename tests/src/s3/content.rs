//! The bytes of an object: one segment for a whole PUT, one per part of a multipart upload, shared and never copied.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame, SizeHint};
use s3s::Body;

/// Bytes in segments. Cloning and slicing share the segments.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// Where each segment begins, and its bytes; none is empty.
    segments: Vec<(u64, Bytes)>,
    length: u64,
}

impl Content {
    /// Appends a segment.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            let start = self.length;
            self.length += bytes.len() as u64;
            self.segments.push((start, bytes));
        }
    }

    /// Appends everything of `other`.
    pub(super) fn append(&mut self, other: &Content) {
        other.segments.iter().for_each(|(_, bytes)| self.push(bytes.clone()));
    }

    /// How many bytes there are.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The segments in order.
    pub(super) fn segments(&self) -> impl Iterator<Item = &Bytes> {
        self.segments.iter().map(|(_, bytes)| bytes)
    }

    /// The bytes of `range`, which must lie within.
    pub(super) fn slice(&self, range: Range<u64>) -> Content {
        let mut slice = Content::default();
        let first = self.segments.partition_point(|(start, bytes)| start + bytes.len() as u64 <= range.start);
        for (start, bytes) in self.segments[first..].iter().take_while(|(start, _)| *start < range.end) {
            let from = range.start.saturating_sub(*start) as usize;
            let to = (range.end - start).min(bytes.len() as u64) as usize;
            slice.push(bytes.slice(from..to));
        }
        slice
    }

    /// All bytes in one piece; copies only if there are several segments.
    pub(super) fn to_bytes(&self) -> Bytes {
        match self.segments.as_slice() {
            [(_, only)] => only.clone(),
            segments => segments.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect(),
        }
    }

    /// The body of an answer.
    pub(super) fn into_body(self) -> Body {
        Body::http_body(Segments {
            left: self.length,
            segments: self.segments.into_iter().map(|(_, bytes)| bytes).collect(),
        })
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        let mut content = Content::default();
        content.push(bytes);
        content
    }
}

/// A body of several segments whose length is known.
struct Segments {
    segments: VecDeque<Bytes>,
    left: u64,
}

impl hyper::body::Body for Segments {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.segments.pop_front().map(|bytes| {
            self.left -= bytes.len() as u64;
            Ok(Frame::data(bytes))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
