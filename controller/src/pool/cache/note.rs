//! What a file of the disk cache holds, noted in an extended attribute of that very file, so that the two are never
//! apart: which version of which object, and which chunks of it are there. Applications have no access to it, a VMDS
//! neither.

use std::ops::Range;
use std::os::fd::AsFd;

use address_map::record::StoredObject;
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Where it is noted; only root sees it.
pub(super) const ATTRIBUTE: &str = "trusted.vmds.cached";
/// Largest note, bytes: what fits into an inode's block of attributes on any of the usual file systems.
const NOTE_MAX: usize = 3800;
const CONFIG: Configuration<LittleEndian, Varint, Limit<NOTE_MAX>> =
    bincode::config::standard().with_limit::<NOTE_MAX>();

/// Least size of a chunk, bytes: what is fetched at once, and proven at once. Whole pieces of [`address_map::sums`].
const CHUNK_MIN: u64 = 2 << 20;
/// Largest size of a chunk. What would need larger ones is not cached.
const CHUNK_MAX: u64 = 64 << 20;
/// Most chunks of one file: one bit each.
const CHUNKS_MAX: u64 = 16 * 1024;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Note {
    /// Which file this is, drawn by lot: another one that takes its place has another number.
    pub(super) tag: u64,
    /// Size of a chunk, bytes.
    pub(super) chunk: u64,
    /// Size of the object, bytes.
    pub(super) size: u64,
    key: String,
    etag: String,
    /// A bit for each chunk that is there.
    there: Vec<u8>,
}

impl Note {
    /// Nothing of an object is there yet. `None`: it is too large, or its name is.
    pub(super) fn new(tag: u64, stored: &StoredObject) -> Option<Self> {
        let mut chunk = CHUNK_MIN;
        while stored.size.div_ceil(chunk) > CHUNKS_MAX {
            chunk *= 2;
        }
        let StoredObject { object, etag, size } = stored;
        let there = vec![0; size.div_ceil(chunk).div_ceil(8) as usize];
        let note = Self { tag, chunk, size: *size, key: object.key.clone(), etag: etag.clone(), there };
        let fits = chunk <= CHUNK_MAX && note.encoded().is_ok_and(|note| note.len() <= NOTE_MAX);
        fits.then_some(note)
    }

    /// What is noted of a file; `None`: nothing that can be understood.
    pub(super) fn of(file: impl AsFd) -> Result<Option<Self>, Errno> {
        let mut note = [0; NOTE_MAX];
        let length = match rustix::fs::fgetxattr(file, ATTRIBUTE, &mut note) {
            Ok(length) => length,
            Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => return Ok(None),
            Err(error) => return Err(error),
        };
        let read = bincode::decode_from_slice::<Self, _>(&note[..length], CONFIG);
        Ok(read.ok().map(|(note, _)| note).filter(Self::is_sound))
    }

    fn is_sound(&self) -> bool {
        let chunks = if self.chunk > 0 { self.size.div_ceil(self.chunk) } else { u64::MAX };
        chunks <= CHUNKS_MAX && self.there.len() as u64 == chunks.div_ceil(8)
    }

    fn encoded(&self) -> Result<Vec<u8>, bincode::error::EncodeError> {
        bincode::encode_to_vec(self, CONFIG)
    }

    /// Notes it.
    pub(super) fn write(&self, file: impl AsFd) -> Result<(), Errno> {
        let note = self.encoded().map_err(|_| Errno::RANGE)?;
        rustix::fs::fsetxattr(file, ATTRIBUTE, &note, XattrFlags::empty())
    }

    /// Whether the file holds this version of this object, or a part of it.
    pub(super) fn is_of(&self, stored: &StoredObject) -> bool {
        (&self.key, &self.etag, self.size) == (&stored.object.key, &stored.etag, stored.size)
    }

    /// How many chunks there are.
    pub(super) fn chunks(&self) -> usize {
        self.size.div_ceil(self.chunk) as usize
    }

    /// The chunks that a range of bytes touches.
    pub(super) fn touched(&self, range: &Range<u64>) -> Range<usize> {
        let end = range.end.min(self.size);
        if range.start >= end {
            return 0..0;
        }
        (range.start / self.chunk) as usize..end.div_ceil(self.chunk) as usize
    }

    /// The bytes of a chunk.
    pub(super) fn bytes(&self, index: usize) -> Range<u64> {
        let start = index as u64 * self.chunk;
        start..(start + self.chunk).min(self.size)
    }

    /// Whether a chunk is there.
    pub(super) fn has(&self, index: usize) -> bool {
        self.there[index / 8] >> (index % 8) & 1 == 1
    }

    /// A chunk is there, or is not any more.
    pub(super) fn set(&mut self, index: usize, there: bool) {
        let bit = 1 << (index % 8);
        match there {
            true => self.there[index / 8] |= bit,
            false => self.there[index / 8] &= !bit,
        }
    }

    /// How many bytes are there.
    pub(super) fn held(&self) -> u64 {
        let there = (0..self.chunks()).filter(|index| self.has(*index)).map(|index| self.bytes(index));
        there.map(|bytes| bytes.end - bytes.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use address_map::ids::PoolId;
    use address_map::record::ObjectRef;

    use super::*;

    fn object(size: u64, key: &str) -> StoredObject {
        StoredObject {
            object: ObjectRef { pool: PoolId(1), key: key.to_owned() },
            etag: "\"e\"".to_owned(),
            size,
        }
    }

    #[test]
    fn chunks_come_and_go() {
        let mut note = Note::new(7, &object(5 << 20, "k")).unwrap();
        assert_eq!((note.chunk, note.chunks(), note.held()), (2 << 20, 3, 0));
        assert_eq!(note.touched(&(0..1)), 0..1);
        assert_eq!(note.touched(&((2 << 20) - 1..(2 << 20) + 1)), 0..2);
        assert_eq!(note.touched(&(5 << 20..u64::MAX)), 0..0);
        note.set(2, true);
        assert!(note.has(2) && !note.has(1));
        assert_eq!((note.bytes(2), note.held()), (4 << 20..5 << 20, 1 << 20));
        note.set(2, false);
        assert_eq!(note.held(), 0);
    }

    #[test]
    fn large_objects_have_large_chunks_and_the_largest_are_not_cached() {
        assert_eq!(Note::new(7, &object(32 << 30, "k")).unwrap().chunk, 2 << 20);
        assert_eq!(Note::new(7, &object((32 << 30) + 1, "k")).unwrap().chunk, 4 << 20);
        assert!(Note::new(7, &object(1 << 40, &"k".repeat(1024))).is_some());
        assert_eq!(Note::new(7, &object((1 << 40) + 1, "k")), None);
        assert_eq!(Note::new(7, &object(1 << 40, &"k".repeat(3000))), None);
    }

    #[test]
    fn what_is_noted_is_found_again_and_nonsense_is_nothing() {
        let file = tempfile::tempfile().unwrap();
        let stored = object(9 << 20, "k");
        let mut note = Note::new(u64::MAX, &stored).unwrap();
        note.set(4, true);
        match note.write(&file) {
            // Not every file system has such attributes, and only root may set them.
            Err(Errno::NOTSUP | Errno::PERM) => return,
            noted => noted.unwrap(),
        }
        assert_eq!(Note::of(&file).unwrap().as_ref(), Some(&note));
        assert!(note.is_of(&stored) && !note.is_of(&object(9 << 20, "l")));
        rustix::fs::fsetxattr(&file, ATTRIBUTE, b"\x01\x00", XattrFlags::empty()).unwrap();
        assert_eq!(Note::of(&file).unwrap(), None);
        rustix::fs::fremovexattr(&file, ATTRIBUTE).unwrap();
        assert_eq!(Note::of(&file).unwrap(), None);
    }
}
