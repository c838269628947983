//! Bytes of files of an object store: small ones in a record of their own, others in one immutable object each.

use super::object::{BackingFacts, adopted_key, collect_keys, discard_after, keep, need_file};
use crate::attr::Timestamp;
use crate::error::Result;
use crate::ids::{Ino, PoolId};
use crate::key;
use crate::record::{Inode, Layout, StoredObject};
use crate::shard::{Records, Txn};
use crate::sums::BLOCK;

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

/// All sums of the object that has a file's bytes; none where nobody has made any.
pub fn all_sums<R: Records>(records: &R, ino: Ino) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for block in 0.. {
        let mut sums = sums(records, ino, block)?;
        let last = sums.len() < BLOCK;
        all.append(&mut sums);
        if last {
            break;
        }
    }
    Ok(all)
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
        Layout::None | Layout::Inline(_) | Layout::Object(_) | Layout::Extents | Layout::Adopted(_) => {}
    }
    Ok(())
}

fn later(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp { sec: time.sec.saturating_add(seconds), ..time }
}
