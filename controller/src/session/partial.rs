//! Backing files that do not have all bytes of their object: of a large object that is changed here and there only what
//! is touched is fetched, and only what was changed is sent.
//!
//! Which chunk is in which state is noted in an extended attribute of the backing file itself, so that the two are never
//! apart. Applications have no access to it, a VMDS neither.
//!
//! **Guarantees**: a chunk is noted as there after its bytes are durable, and as changed before somebody who asked
//! first changes it. **Assumptions**: one thread at a time is at a file, and all that is [`State::Missing`] or
//! [`State::Same`] is in the object that the map leads to.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::pool::s3::{NOTE, NOTE_MAX};

const CONFIG: Configuration<LittleEndian, Varint, Limit<NOTE_MAX>> =
    bincode::config::standard().with_limit::<NOTE_MAX>();

/// What a backing file has of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing: its bytes are in the object.
    Missing = 0,
    /// Its bytes, and they are those of the object.
    Same = 1,
    /// Its bytes, and they may be others.
    Changed = 2,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Partial {
    /// Which backing file this is, drawn by lot.
    tag: u64,
    /// Size of a chunk, bytes.
    chunk: u64,
    /// How many bytes of the file may be missing: what is behind them is there.
    end: u64,
    /// Something behind `end` was changed, or the file was cut.
    beyond: bool,
    /// States of the chunks, four to a byte.
    states: Vec<u8>,
}

impl Partial {
    /// All of an object of `end` bytes is missing.
    pub(super) fn new(tag: u64, chunk: u64, end: u64) -> Self {
        let chunks = end.div_ceil(chunk) as usize;
        Self { tag, chunk, end, beyond: false, states: vec![0; chunks.div_ceil(4)] }
    }

    /// What is noted of a backing file; `None`: it has everything.
    pub(super) fn of(file: impl AsFd) -> io::Result<Option<Self>> {
        let mut note = [0; NOTE_MAX];
        let length = match rustix::fs::fgetxattr(file, NOTE, &mut note) {
            Ok(length) => length,
            Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (partial, read): (Self, usize) = bincode::decode_from_slice(&note[..length], CONFIG)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let fits =
            partial.chunk > 0 && partial.states.len() == partial.chunks().div_ceil(4) && read == length;
        if fits { Ok(Some(partial)) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Notes it, durably.
    pub(super) fn note(&self, file: impl AsFd) -> io::Result<()> {
        let note = bincode::encode_to_vec(self, CONFIG).map_err(io::Error::other)?;
        rustix::fs::fsetxattr(&file, NOTE, &note, XattrFlags::empty())?;
        Ok(rustix::fs::fsync(&file)?)
    }

    /// Which backing file this is.
    pub(super) fn tag(&self) -> u64 {
        self.tag
    }

    /// Size of a chunk, bytes.
    pub(super) fn chunk(&self) -> u64 {
        self.chunk
    }

    /// What lies here and behind is there.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    fn chunks(&self) -> usize {
        self.end.div_ceil(self.chunk) as usize
    }

    fn state(&self, index: usize) -> State {
        match self.states[index / 4] >> (index % 4 * 2) & 3 {
            0 => State::Missing,
            1 => State::Same,
            _ => State::Changed,
        }
    }

    fn set(&mut self, index: usize, state: State) {
        let shift = index % 4 * 2;
        self.states[index / 4] = self.states[index / 4] & !(3 << shift) | (state as u8) << shift;
    }

    /// The chunks that a range of bytes touches.
    fn touched(&self, range: &Range<u64>) -> Range<usize> {
        let end = range.end.min(self.end);
        if range.start >= end {
            return 0..0;
        }
        (range.start / self.chunk) as usize..end.div_ceil(self.chunk) as usize
    }

    fn bytes(&self, index: usize) -> Range<u64> {
        let start = index as u64 * self.chunk;
        start..(start + self.chunk).min(self.end)
    }

    /// What of a range is missing, chunk by chunk.
    pub(super) fn missing(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let missing = self.touched(range).filter(|index| self.state(*index) == State::Missing);
        missing.map(|index| self.bytes(index)).collect()
    }

    /// The bytes of chunks that were missing are there.
    pub(super) fn arrived(&mut self, bytes: &Range<u64>) {
        for index in self.touched(bytes) {
            if self.state(index) == State::Missing {
                self.set(index, State::Same);
            }
        }
    }

    /// Whether a change of these bytes would have to be noted first.
    pub(super) fn would_change(&self, range: &Range<u64>) -> bool {
        (range.end > self.end && !self.beyond)
            || self.touched(range).any(|index| self.state(index) != State::Changed)
    }

    /// These bytes, which are there or do not matter, are about to be changed.
    pub(super) fn change(&mut self, range: &Range<u64>) {
        self.beyond |= range.end > self.end;
        self.touched(range).for_each(|index| self.set(index, State::Changed));
    }

    /// Whether anything may be other than in the object.
    pub(super) fn is_changed(&self) -> bool {
        self.beyond || (0..self.chunks()).any(|index| self.state(index) == State::Changed)
    }

    /// The bytes that are as in the object, neighbours joined.
    pub(super) fn same(&self) -> Vec<Range<u64>> {
        let mut same: Vec<Range<u64>> = Vec::new();
        for index in (0..self.chunks()).filter(|index| self.state(*index) != State::Changed) {
            let bytes = self.bytes(index);
            match same.last_mut() {
                Some(last) if last.end == bytes.start => last.end = bytes.end,
                _ => same.push(bytes),
            }
        }
        same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_arrive_and_change() {
        let mut partial = Partial::new(1, 10, 95);
        assert_eq!(partial.missing(&(0..u64::MAX)).len(), 10);
        assert_eq!(partial.missing(&(19..21)), [10..20, 20..30]);
        assert_eq!(partial.missing(&(95..200)), []);
        assert_eq!(partial.same(), vec![0..95]);
        partial.arrived(&(10..30));
        assert_eq!(partial.missing(&(0..40)), [0..10, 30..40]);
        assert!(!partial.is_changed() && partial.would_change(&(15..16)));
        partial.change(&(15..16));
        partial.change(&(90..93));
        assert!(partial.is_changed() && !partial.would_change(&(10..20)));
        assert_eq!(partial.same(), vec![0..10, 20..90]);
        assert_eq!(partial.missing(&(90..95)), [], "it does not matter any more");
        partial.arrived(&(10..20));
        assert_eq!(partial.same(), vec![0..10, 20..90], "what was changed stays changed");
        assert!(partial.would_change(&(94..96)), "behind the end");
        partial.change(&(95..96));
        assert!(!partial.would_change(&(94..200)));
    }

    #[test]
    fn what_is_noted_is_found_again() {
        let file = tempfile::tempfile().unwrap();
        let mut partial = Partial::new(u64::MAX, 8 << 20, 80_000 << 20);
        partial.change(&(0..1 << 40));
        match partial.note(&file) {
            // Not every file system has such attributes.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTSUP) => return,
            noted => noted.unwrap(),
        }
        assert_eq!(Partial::of(&file).unwrap(), Some(partial));
        rustix::fs::fsetxattr(&file, NOTE, b"\x01", XattrFlags::empty()).unwrap();
        assert!(Partial::of(&file).is_err());
        rustix::fs::fremovexattr(&file, NOTE).unwrap();
        assert_eq!(Partial::of(&file).unwrap(), None);
    }
}
