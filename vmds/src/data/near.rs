//! What of a leased file is there already, as far as this process knows, and how far it has been written.

use std::ops::Range;

use address_map::limits::WROTE_EVERY;
use address_map::wire::Near;
use parking_lot::Mutex;

/// Which chunks of a file may be used: those for which the controller has been asked.
#[derive(Debug)]
pub(crate) struct Chunks {
    near: Near,
    /// For each chunk, and for all that is behind them.
    known: Mutex<Vec<Use>>,
}

/// What a chunk may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Nothing,
    Reading,
    Changing,
}

impl Chunks {
    /// Nothing has been asked for yet.
    pub(crate) fn new(near: Near) -> Self {
        // There are 10,000 at most; one more stands for what lies behind.
        let chunks = near.end.div_ceil(near.chunk.max(1)) as usize;
        let mut known = vec![Use::Nothing; chunks + 1];
        known[chunks] = Use::Reading;
        Self { near, known: Mutex::new(known) }
    }

    /// As of [`Near::tag`].
    pub(crate) fn tag(&self) -> u64 {
        self.near.tag
    }

    fn touched(&self, range: &Range<u64>, chunks: usize) -> Range<usize> {
        let index = |offset: u64| (offset / self.near.chunk.max(1)) as usize;
        match range.end {
            end if range.start >= end => 0..0,
            _ if range.start >= self.near.end => chunks - 1..chunks,
            end if end > self.near.end => index(range.start)..chunks,
            end => index(range.start)..index(end - 1) + 1,
        }
    }

    /// Whether the controller has to be asked before these bytes are used.
    pub(crate) fn lack(&self, range: &Range<u64>, write: bool) -> bool {
        let known = self.known.lock();
        let wanted = if write { Use::Changing } else { Use::Reading };
        known[self.touched(range, known.len())].iter().any(|chunk| *chunk < wanted)
    }

    /// The controller has been asked.
    pub(crate) fn have(&self, range: &Range<u64>, write: bool) {
        let mut known = self.known.lock();
        let (touched, now) =
            (self.touched(range, known.len()), if write { Use::Changing } else { Use::Reading });
        known[touched].iter_mut().for_each(|chunk| *chunk = now.max(*chunk));
    }
}

/// How far a file has been written from its beginning on, without gaps.
#[derive(Debug, Default)]
pub(crate) struct Tip(Mutex<u64>);

impl Tip {
    /// Bytes were written; how far that is, when it is worth telling.
    pub(crate) fn wrote(&self, range: Range<u64>) -> Option<u64> {
        let mut tip = self.0.lock();
        if range.start > *tip || range.end <= *tip {
            return None;
        }
        let before = std::mem::replace(&mut *tip, range.end);
        (before / WROTE_EVERY < range.end / WROTE_EVERY).then_some(range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_asked_for_once() {
        let chunks = Chunks::new(Near { tag: 7, chunk: 10, end: 25 });
        assert!(chunks.lack(&(0..1), false) && !chunks.lack(&(25..90), false) && !chunks.lack(&(5..5), true));
        chunks.have(&(5..11), false);
        assert!(!chunks.lack(&(0..20), false) && chunks.lack(&(0..1), true) && chunks.lack(&(19..21), false));
        chunks.have(&(20..26), true);
        assert!(
            !chunks.lack(&(20..25), false) && !chunks.lack(&(24..1000), true) && chunks.lack(&(19..26), true)
        );
        chunks.have(&(20..30), false);
        assert!(!chunks.lack(&(20..30), true), "what may be changed stays so");
    }

    #[test]
    fn what_is_written_in_order_is_told_now_and_then() {
        let tip = Tip::default();
        let step = WROTE_EVERY / 2;
        assert_eq!(tip.wrote(0..step), None);
        assert_eq!(tip.wrote(2 * step..3 * step), None, "a gap");
        assert_eq!(tip.wrote(step..2 * step), Some(2 * step));
        assert_eq!(tip.wrote(0..step), None, "once more");
        assert_eq!(tip.wrote(0..10 * step), Some(10 * step));
    }
}
