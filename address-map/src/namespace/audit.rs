//! What a pool should have, as the map says: for comparing the two.

use crate::error::Result;
use crate::ids::{Ino, PoolId};
use crate::key;
use crate::record::{Inode, Layout, ObjectRef, StoredObject};
use crate::shard::{Records, decode};

/// A piece of the list of files whose bytes are in objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The files, in order of their numbers, and their objects.
    pub files: Vec<(Ino, StoredObject)>,
    /// Where the next piece begins; `None`: that was all.
    pub next: Option<Ino>,
}

/// The files whose bytes are in objects of a pool, from the number `from` on; looks at `most` inodes at a time.
pub fn expected<R: Records>(records: &R, pool: PoolId, from: Ino, most: usize) -> Result<Expected> {
    let start = key::inode(records.tenant(), from);
    let end = key::after_prefix(&key::kind_prefix(records.tenant(), key::Kind::Inode));
    let (mut expected, mut seen) = (Expected::default(), 0);
    records.scan(&start, end.as_deref(), &mut |key, value| {
        let Some(ino) = key::parse_number(key).map(Ino) else { return Ok(true) };
        if seen == most {
            expected.next = Some(ino);
            return Ok(false);
        }
        seen += 1;
        match decode::<Inode>(key, value)?.layout {
            Layout::Stored(stored) if stored.object.pool == pool => expected.files.push((ino, stored)),
            _ => {}
        }
        Ok(true)
    })?;
    Ok(expected)
}

/// Whether anything of a tenant is in a pool, or is to be found there.
pub fn uses<R: Records>(records: &R, pool: PoolId) -> Result<bool> {
    let mut used = false;
    records.scan_prefix(&key::kind_prefix(records.tenant(), key::Kind::Inode), &mut |key, value| {
        let layout = decode::<Inode>(key, value)?.layout;
        used = match &layout {
            Layout::Adopted(adopted) => adopted.pool == pool,
            other => other.pool() == Some(pool),
        };
        Ok(!used)
    })?;
    Ok(used)
}

/// What a file's bytes are in, if they are in this object.
pub fn leads_to<R: Records>(records: &R, ino: Ino, object: &ObjectRef) -> Result<Option<StoredObject>> {
    Ok(match records.inode(ino)?.map(|inode| inode.layout) {
        Some(Layout::Stored(stored)) if stored.object == *object => Some(stored),
        _ => None,
    })
}

/// Whether the map knows an object that was made for a file: the file leads to it, or it is noted as one that is to be
/// deleted (which an object that is being made is, too). To be asked in a transaction, between two of which an object
/// may go from one state to the other.
pub fn is_known<R: Records>(records: &R, ino: Ino, object: &ObjectRef) -> Result<bool> {
    let noted = records.value(&key::garbage(records.tenant(), object))?.is_some();
    Ok(noted || leads_to(records, ino, object)?.is_some())
}
