//! Files spread over several objects: which bytes are where.

use super::object::{collect_keys, discard};
use crate::error::{Refusal, Result};
use crate::ids::Ino;
use crate::key;
use crate::record::{Extent, Layout, ObjectRef};
use crate::shard::{Records, Txn, decode};

/// A piece of a file: where it begins in the file, and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First byte within the file.
    pub at: u64,
    /// The bytes.
    pub extent: Extent,
}

/// All pieces of a file in order; gaps are zeroes.
pub fn pieces<R: Records>(records: &R, ino: Ino) -> Result<Vec<Piece>> {
    let prefix = key::extents(records.tenant(), ino);
    let mut found = Vec::new();
    records.scan_prefix(&prefix, &mut |key, value| {
        let at = key.get(prefix.len()..).and_then(|rest| rest.try_into().ok()).map(u64::from_be_bytes);
        if let Some(at) = at {
            found.push(Piece { at, extent: decode(key, value)? });
        }
        Ok(true)
    })?;
    Ok(found)
}

/// Puts a piece in place. What it covers of older pieces is cut away; objects nothing refers to any more become
/// garbage. A file of one object becomes a file of extents.
pub fn put(txn: &mut Txn<'_>, ino: Ino, new: Piece) -> Result<()> {
    let end =
        new.at.checked_add(new.extent.length).filter(|_| new.extent.length > 0).ok_or(Refusal::Invalid)?;
    let mut inode = txn.need_inode(ino)?;
    if let Layout::Object(object) = &inode.layout {
        if inode.size > 0 {
            let whole = Extent { object: object.clone(), offset: 0, length: inode.size };
            txn.put(key::extent(txn.tenant(), ino, 0), &whole);
        } else {
            let object = object.clone();
            discard(txn, &object);
        }
        inode.layout = Layout::Extents;
    }
    let old = pieces(txn, ino)?;
    for piece in &old {
        cut(txn, ino, piece, new.at, end);
    }
    txn.put(key::extent(txn.tenant(), ino, new.at), &new.extent);
    txn.recharge(inode.size, inode.size.max(end))?;
    inode.size = inode.size.max(end);
    txn.put_inode(ino, &inode);
    discard_unreferenced(txn, ino, &old)
}

/// Removes what lies at `size` and beyond.
pub fn truncate(txn: &mut Txn<'_>, ino: Ino, size: u64) -> Result<()> {
    let old = pieces(txn, ino)?;
    for piece in &old {
        cut(txn, ino, piece, size, u64::MAX);
    }
    discard_unreferenced(txn, ino, &old)
}

/// Removes all pieces of a file that goes away.
pub(super) fn remove_all(txn: &mut Txn<'_>, ino: Ino) -> Result<()> {
    for piece in pieces(txn, ino)? {
        discard(txn, &piece.extent.object);
    }
    let mut keys = Vec::new();
    collect_keys(txn, &key::extents(txn.tenant(), ino), &mut keys)?;
    keys.into_iter().for_each(|key| txn.delete(key));
    Ok(())
}

/// Takes `from..to` of the file out of a piece; what is left in front and behind stays.
fn cut(txn: &mut Txn<'_>, ino: Ino, piece: &Piece, from: u64, to: u64) {
    let Piece { at, extent } = piece;
    let end = at + extent.length;
    if end <= from || *at >= to {
        return;
    }
    txn.delete(key::extent(txn.tenant(), ino, *at));
    if *at < from {
        let front = Extent { length: from - at, ..extent.clone() };
        txn.put(key::extent(txn.tenant(), ino, *at), &front);
    }
    if end > to {
        let behind = Extent { offset: extent.offset + (to - at), length: end - to, ..extent.clone() };
        txn.put(key::extent(txn.tenant(), ino, to), &behind);
    }
}

fn discard_unreferenced(txn: &mut Txn<'_>, ino: Ino, before: &[Piece]) -> Result<()> {
    let kept: Vec<ObjectRef> = pieces(txn, ino)?.into_iter().map(|piece| piece.extent.object).collect();
    for piece in before {
        if !kept.contains(&piece.extent.object) {
            discard(txn, &piece.extent.object);
        }
    }
    Ok(())
}
