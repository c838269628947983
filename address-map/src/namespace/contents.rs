//! Bytes of files of an object store: small ones in a record of their own, others in one immutable object each.

use std::ops::Range;

use super::object::{BackingFacts, adopted_key, collect_keys, discard_after, keep, need_file};
use crate::attr::Timestamp;
use crate::error::Result;
use crate::ids::{Ino, PoolId};
use crate::key;
use crate::record::{Inode, Layout, StoredObject};
use crate::shard::{Records, Txn};
use crate::sums::{BLOCK, PIECE};

/// How long an object that was replaced or removed is kept, seconds: longer than any address lease that leads to it.
pub const GRACE_SECONDS: i64 = 300;
/// How long an upload may take before what it has left is deleted, seconds.
pub const UPLOAD_SECONDS: i64 = 24 * 3600;

/// Where the bytes of a file have been brought to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// These they are, at most [`crate::limits::SMALL_FILE_MAX`]: they go into the map.
    Small(PoolId, Vec<u8>),
    /// They are in this object, and have these [`crate::sums`].
    Stored(StoredObject, Vec<u64>),
}

/// The bytes of a small file.
pub fn small<R: Records>(records: &R, ino: Ino) -> Result<Vec<u8>> {
    Ok(records.record(&key::contents(records.tenant(), ino))?.unwrap_or_default())
}

/// A block of the sums of the object that has a file's bytes; fewer where they end, none where nobody has made any.
pub fn sums<R: Records>(records: &R, ino: Ino, block: u32) -> Result<Vec<u64>> {
    Ok(records.record(&key::sums(records.tenant(), ino, block))?.unwrap_or_default())
}

/// Sums of the object that has a file's bytes, of those in `range`, which begins where a piece does. Fewer where they
/// end, none where nobody has made any.
pub fn sums_of<R: Records>(records: &R, ino: Ino, range: &Range<u64>) -> Result<Vec<u64>> {
    const PER_BLOCK: u64 = BLOCK as u64;
    let pieces = range.start / PIECE..range.end.div_ceil(PIECE);
    let mut found = Vec::new();
    for block in pieces.start / PER_BLOCK..pieces.end.div_ceil(PER_BLOCK) {
        let Ok(number) = u32::try_from(block) else { break };
        let sums = sums(records, ino, number)?;
        let first = block * PER_BLOCK;
        let within = |piece: u64| (piece.saturating_sub(first) as usize).min(sums.len());
        found.extend_from_slice(&sums[within(pieces.start)..within(pieces.end)]);
        if sums.len() < BLOCK {
            break;
        }
    }
    Ok(found)
}

/// Notes that an object is about to be made: should nobody [`put`] it in place, it is deleted after [`UPLOAD_SECONDS`].
pub fn intend(txn: &mut Txn<'_>, object: &crate::record::ObjectRef) {
    let not_before = later(txn.now(), UPLOAD_SECONDS);
    discard_after(txn, object, not_before);
}

/// Puts new bytes of a volatile file in place of the ones before. `still_open` leaves it volatile.
///
/// # Errors
/// There is no such file any more; what was uploaded for it is deleted later.
pub fn put(
    txn: &mut Txn<'_>,
    ino: Ino,
    facts: &BackingFacts,
    contents: Contents,
    still_open: bool,
) -> Result<Inode> {
    let mut inode = need_file(txn, ino)?;
    let before = inode.layout.clone();
    let tenant = txn.tenant();
    match contents {
        Contents::Small(pool, bytes) => {
            discard_current(txn, ino, &before)?;
            txn.put(key::contents(tenant, ino), &bytes);
            inode.layout = Layout::Small { pool };
        }
        Contents::Stored(stored, sums) => {
            discard_current(txn, ino, &before)?;
            keep(txn, &stored.object);
            for (block, sums) in (0..).zip(sums.chunks(BLOCK)) {
                txn.put(key::sums(tenant, ino, block), &sums.to_vec());
            }
            inode.layout = Layout::Stored(stored);
        }
    }
    txn.recharge_fact(inode.size, facts.size)?;
    facts.overlay(&mut inode);
    inode.dirty = still_open;
    txn.put_inode(ino, &inode);
    Ok(inode)
}

/// What a layout of an object store leads to is not needed any more.
pub(super) fn discard_current(txn: &mut Txn<'_>, ino: Ino, layout: &Layout) -> Result<()> {
    match layout {
        Layout::Small { .. } => txn.delete(key::contents(txn.tenant(), ino)),
        // What was there before belongs to somebody else.
        Layout::Stored(StoredObject { object, .. }) if adopted_key(object).is_some() => {}
        Layout::Stored(StoredObject { object, .. }) => {
            // Somebody may still be reading it with an address given out before.
            let not_before = later(txn.now(), GRACE_SECONDS);
            discard_after(txn, object, not_before);
            let mut sums = Vec::new();
            collect_keys(txn, &key::all_sums(txn.tenant(), ino), &mut sums)?;
            sums.into_iter().for_each(|key| txn.delete(key));
        }
        Layout::None | Layout::Inline(_) | Layout::Object(_) | Layout::Adopted(_) => {}
        Layout::Retired(never) => match *never {},
    }
    Ok(())
}

fn later(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp { sec: time.sec.saturating_add(seconds), ..time }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::codec;
    use crate::engine::{Value, Visit};
    use crate::ids::TenantId;
    use crate::key::Key;

    const INO: Ino = Ino(9);

    /// Sums 0, 1, 2, ... of so many pieces, and which blocks of them were read.
    struct Sums {
        pieces: u64,
        read: RefCell<Vec<u32>>,
    }

    impl Records for Sums {
        fn tenant(&self) -> TenantId {
            TenantId(1)
        }

        fn value(&self, key: &Key) -> Result<Option<Value>> {
            let is_it = |block: &u32| *key == key::sums(self.tenant(), INO, *block);
            let block = (0..100).find(is_it).expect("only sums are read");
            self.read.borrow_mut().push(block);
            let first = u64::from(block) * BLOCK as u64;
            let sums: Vec<u64> = (first..self.pieces.min(first + BLOCK as u64)).collect();
            Ok((!sums.is_empty()).then(|| codec::encode(&sums).into()))
        }

        fn scan(&self, _: &[u8], _: Option<&[u8]>, _: &mut Visit<'_>) -> Result<()> {
            panic!("nothing is searched for")
        }
    }

    #[test]
    fn only_the_sums_of_a_range_are_read() {
        let of = |pieces: u64, range: Range<u64>| {
            let records = Sums { pieces, read: RefCell::default() };
            let sums = sums_of(&records, INO, &range).unwrap();
            (sums, records.read.into_inner())
        };
        let block = BLOCK as u64;
        let (all, some): (Vec<u64>, Vec<u64>) = ((0..3 * block + 5).collect(), (0..7).collect());
        assert_eq!(of(3 * block + 5, 0..u64::from(u32::MAX) * PIECE), (all.clone(), vec![0, 1, 2, 3]));
        assert_eq!(of(3 * block + 5, 0..(3 * block + 4) * PIECE + 1), (all, vec![0, 1, 2, 3]));
        assert_eq!(of(3 * block + 5, 2 * block * PIECE..(2 * block + 1) * PIECE), (vec![2 * block], vec![2]));
        assert_eq!(
            of(3 * block + 5, (block - 1) * PIECE..(block + 1) * PIECE),
            (vec![block - 1, block], vec![0, 1]),
            "across the end of a block"
        );
        assert_eq!(of(7, 0..7 * PIECE - 1), (some, vec![0]));
        assert_eq!(of(7, 7 * PIECE..9 * PIECE), (vec![], vec![0]), "behind the last");
        assert_eq!(of(2 * block, block * PIECE..3 * block * PIECE).0.len() as u64, block);
        assert_eq!(of(0, 0..PIECE), (vec![], vec![0]), "nobody has made any");
        assert_eq!(of(7, 0..0), (vec![], vec![]));
    }
}
