//! Removing names, and inodes with their last name.

use super::{entry_key, link, need_directory, object, take_entry};
use crate::attr::FileKind;
use crate::error::{Refusal, Result};
use crate::ids::Ino;
use crate::key;
use crate::name::Name;
use crate::record::{Entry, Inode};
use crate::shard::{Records, Txn};

/// A name that is gone.
#[derive(Clone, Debug)]
pub struct Removed {
    /// The inode it led to.
    pub ino: Ino,
    /// That inode as it is now; `nlink` 0 when this was its last name.
    pub inode: Inode,
    /// The directory, as it is now.
    pub parent: Inode,
}

/// Removes a name of anything but a directory. An inode without a name is kept while `in_use` says so.
pub fn unlink(txn: &mut Txn<'_>, parent: Ino, name: &Name, in_use: &dyn Fn(Ino) -> bool) -> Result<Removed> {
    let mut directory = need_directory(txn, parent)?;
    let key = entry_key(txn, parent, name)?;
    let entry = txn.entry(&key)?.ok_or(Refusal::NotFound)?;
    let Entry::Inode { ino, kind } = entry else { return Err(Refusal::ShareRoot.into()) };
    if kind == FileKind::Directory {
        return Err(Refusal::IsDirectory.into());
    }
    take_entry(txn, &mut directory, key, &entry);
    txn.put_inode(parent, &directory);
    let inode = drop_name(txn, ino, parent, in_use)?;
    Ok(Removed { ino, inode, parent: directory })
}

/// Removes an empty directory.
pub fn rmdir(txn: &mut Txn<'_>, parent: Ino, name: &Name) -> Result<Removed> {
    let mut directory = need_directory(txn, parent)?;
    let key = entry_key(txn, parent, name)?;
    let entry = txn.entry(&key)?.ok_or(Refusal::NotFound)?;
    let Entry::Inode { ino, kind } = entry else { return Err(Refusal::ShareRoot.into()) };
    if kind != FileKind::Directory {
        return Err(Refusal::NotDirectory.into());
    }
    take_entry(txn, &mut directory, key, &entry);
    txn.put_inode(parent, &directory);
    let inode = drop_directory(txn, ino)?;
    Ok(Removed { ino, inode, parent: directory })
}

/// An inode loses one name in `parent` (the entry itself is the caller's business).
pub(super) fn drop_name(
    txn: &mut Txn<'_>,
    ino: Ino,
    parent: Ino,
    in_use: &dyn Fn(Ino) -> bool,
) -> Result<Inode> {
    let mut inode = txn.need_inode(ino)?;
    inode.ctime = txn.now();
    if inode.nlink > 1 {
        link::forget_name(txn, ino, &mut inode, parent)?;
        txn.put_inode(ino, &inode);
        return Ok(inode);
    }
    inode.nlink = 0;
    inode.parent = parent;
    if in_use(ino) {
        txn.put_inode(ino, &inode);
        txn.put(key::orphan(txn.tenant(), ino), &());
    } else {
        object::purge(txn, ino, &inode)?;
    }
    Ok(inode)
}

/// An empty directory loses its name.
pub(super) fn drop_directory(txn: &mut Txn<'_>, ino: Ino) -> Result<Inode> {
    let mut inode = need_directory(txn, ino)?;
    if inode.size > 0 {
        return Err(Refusal::NotEmpty.into());
    }
    inode.nlink = 0;
    inode.ctime = txn.now();
    object::purge(txn, ino, &inode)?;
    Ok(inode)
}
