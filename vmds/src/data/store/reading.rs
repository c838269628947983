//! What of an object is in memory or on its way, and who waits for it: a pure state machine.
//!
//! The kernel caches what it has read, so a piece is dropped as soon as all of it was delivered. Reading ahead begins
//! when requests follow each other, and its window doubles with each that does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use address_map::sums;
use rustix::io::Errno;

/// Size of what is loaded at once when reading ahead, bytes.
const PIECE: u64 = 2 * 1024 * 1024;
/// Farthest ahead of the last request that is read, bytes.
const WINDOW_MAX: u64 = 16 * 1024 * 1024;
/// How far from where the last request ended the next may begin and still follow it: the kernel sends several at a
/// time, in any order.
const NEAR: u64 = 2 * 1024 * 1024;

/// Takes the bytes of a request.
pub(super) type Taker = Box<dyn FnOnce(Result<&[u8], Errno>) + Send>;

/// Bytes of a piece, and which of them are meant.
type Part = (Arc<Vec<u8>>, Range<usize>);

/// A part of the object.
struct Piece {
    end: u64,
    /// `None` while it is on its way.
    bytes: Option<Arc<Vec<u8>>>,
    /// How many of its bytes were delivered.
    delivered: u64,
}

struct Request {
    range: Range<u64>,
    taker: Taker,
}

/// An answer that can be given.
pub(super) struct Delivery {
    taker: Taker,
    parts: Result<Vec<Part>, Errno>,
}

impl Delivery {
    /// Gives it. To be called without a lock.
    pub(super) fn make(self) {
        match self.parts {
            Err(error) => (self.taker)(Err(error)),
            Ok(parts) => match &parts[..] {
                [(bytes, range)] => (self.taker)(Ok(&bytes[range.clone()])),
                parts => {
                    let all: Vec<&[u8]> = parts.iter().map(|(bytes, range)| &bytes[range.clone()]).collect();
                    (self.taker)(Ok(&all.concat()));
                }
            },
        }
    }
}

/// See the module.
pub(super) struct Reading {
    size: u64,
    /// By where they begin; they do not overlap.
    pieces: BTreeMap<u64, Piece>,
    requests: Vec<Request>,
    /// Where the last request ended.
    next: u64,
    window: u64,
}

impl Reading {
    /// Nothing yet of an object of `size` bytes.
    pub(super) fn of(size: u64) -> Self {
        Self { size, pieces: BTreeMap::new(), requests: Vec::new(), next: 0, window: 0 }
    }

    /// Bytes in memory or on their way.
    pub(super) fn buffered(&self) -> usize {
        self.pieces.iter().map(|(start, piece)| (piece.end - start) as usize).sum()
    }

    /// Somebody wants `range`, which is not empty and within the object. Answers what to load now, what can be
    /// delivered, and how many bytes were dropped.
    pub(super) fn want(
        &mut self,
        range: Range<u64>,
        taker: Taker,
        may_read_ahead: bool,
    ) -> (Vec<Range<u64>>, (Vec<Delivery>, usize)) {
        self.follow(&range);
        let ahead = if may_read_ahead { self.window } else { 0 };
        let needed = self.provable(&range);
        let mut loads = self.missing(needed.clone());
        if ahead > 0 {
            let end = self.provable(&(needed.start..needed.end.saturating_add(ahead))).end;
            // Beyond what is wanted, whole pieces only: otherwise each request would load a little.
            let further = self.missing(needed.end..end);
            let whole = |gap: &Range<u64>| gap.end - gap.start >= PIECE || gap.end == self.size;
            loads.extend(further.into_iter().filter(whole));
        }
        let loads: Vec<Range<u64>> = join(loads).into_iter().flat_map(split).collect();
        for load in &loads {
            self.pieces.insert(load.start, Piece { end: load.end, bytes: None, delivered: 0 });
        }
        self.requests.push(Request { range, taker });
        (loads, self.deliverable())
    }

    /// The least that has to be loaded so that a range can be proven to be right.
    fn provable(&self, range: &Range<u64>) -> Range<u64> {
        let start = range.start - range.start % sums::PIECE;
        start..range.end.checked_next_multiple_of(sums::PIECE).unwrap_or(self.size).min(self.size)
    }

    /// Notes whether requests follow each other.
    fn follow(&mut self, range: &Range<u64>) {
        let near =
            range.start <= self.next.saturating_add(NEAR) && range.start.saturating_add(NEAR) >= self.next;
        if near {
            self.window = (self.window * 2).clamp(PIECE, WINDOW_MAX);
            self.next = self.next.max(range.end);
        } else {
            self.window = 0;
            self.next = range.end;
        }
    }

    /// The parts of `range` that are neither here nor on their way.
    fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        let before = self.pieces.range(..=range.start).next_back();
        let within = self.pieces.range(range.start.saturating_add(1)..range.end.max(range.start + 1));
        for (&start, piece) in before.into_iter().chain(within) {
            if start > at {
                gaps.push(at..start.min(range.end));
            }
            at = at.max(piece.end);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// A piece has come, or will not. Answers as [`Reading::want`].
    pub(super) fn loaded(&mut self, start: u64, outcome: Result<Vec<u8>, Errno>) -> (Vec<Delivery>, usize) {
        let Some(piece) = self.pieces.get_mut(&start) else { return (Vec::new(), 0) };
        match outcome {
            Ok(bytes) => {
                piece.bytes = Some(Arc::new(bytes));
                self.deliverable()
            }
            Err(error) => {
                let failed = start..piece.end;
                self.pieces.remove(&start);
                let hit = |request: &mut Request| {
                    request.range.start < failed.end && request.range.end > failed.start
                };
                let requests = self.requests.extract_if(.., hit);
                let deliveries =
                    requests.map(|request| Delivery { taker: request.taker, parts: Err(error) }).collect();
                (deliveries, (failed.end - failed.start) as usize)
            }
        }
    }

    /// Requests that are complete, and how many bytes are not needed any more.
    fn deliverable(&mut self) -> (Vec<Delivery>, usize) {
        let mut deliveries = Vec::new();
        let mut waiting = Vec::new();
        for request in std::mem::take(&mut self.requests) {
            match self.parts(&request.range) {
                Some(parts) => deliveries.push(Delivery { taker: request.taker, parts: Ok(parts) }),
                None => waiting.push(request),
            }
        }
        self.requests = waiting;
        (deliveries, self.drop_delivered())
    }

    fn parts(&mut self, range: &Range<u64>) -> Option<Vec<Part>> {
        if !self.missing(range.clone()).is_empty() {
            return None;
        }
        let first = *self.pieces.range(..=range.start).next_back()?.0;
        let touched = || first..range.end;
        if self.pieces.range(touched()).any(|(_, piece)| piece.bytes.is_none()) {
            return None;
        }
        let mut parts = Vec::new();
        for (&start, piece) in self.pieces.range_mut(touched()) {
            let (from, to) = (range.start.max(start), range.end.min(piece.end));
            piece.delivered += to - from;
            let bytes = piece.bytes.as_ref()?;
            parts.push((Arc::clone(bytes), (from - start) as usize..(to - start) as usize));
        }
        Some(parts)
    }

    /// Drops what was delivered, and what lies too far from where reading goes on to be wanted soon.
    fn drop_delivered(&mut self) -> usize {
        let reach = self.next.saturating_sub(NEAR)..self.next.saturating_add(WINDOW_MAX);
        let requests = &self.requests;
        let done = |start: &u64, piece: &mut Piece| {
            let wanted = requests.iter().any(|r| r.range.start < piece.end && r.range.end > *start);
            let far = piece.end <= reach.start || *start >= reach.end;
            piece.bytes.is_some() && !wanted && (piece.delivered >= piece.end - start || far)
        };
        let dropped = self.pieces.extract_if(.., done).map(|(start, piece)| (piece.end - start) as usize);
        dropped.sum()
    }
}

/// Neighbouring ranges made one.
fn join(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

/// A range in parts of at most [`PIECE`] bytes.
fn split(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    let starts = range.step_by(PIECE as usize);
    starts.map(move |start| start..end.min(start + PIECE))
}

#[cfg(test)]
mod tests;
