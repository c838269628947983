//! Changing attributes.

use super::acl;
use crate::attr::{AttrChange, FileKind, SetTime};
use crate::error::{Refusal, Result};
use crate::ids::Ino;
use crate::limits::FILE_SIZE_MAX;
use crate::record::Inode;
use crate::shard::Txn;

/// Applies a change; a change of size is charged to the quota. The object behind a file is the caller's business:
/// after a change of size the inode is volatile until [`super::object::settle`].
pub fn setattr(txn: &mut Txn<'_>, ino: Ino, change: &AttrChange) -> Result<Inode> {
    let mut inode = txn.need_inode(ino)?;
    let now = txn.now();
    if let Some(size) = change.size {
        resize(txn, &mut inode, size)?;
    }
    if let Some(mode) = change.mode {
        inode.mode = mode & 0o7777;
        acl::follow(txn, ino, &inode)?;
    }
    inode.uid = change.uid.unwrap_or(inode.uid);
    inode.gid = change.gid.unwrap_or(inode.gid);
    let time = |set: SetTime| match set {
        SetTime::Now => now,
        SetTime::To(time) => time,
    };
    if let Some(atime) = change.atime {
        inode.atime = time(atime);
    }
    if let Some(mtime) = change.mtime {
        inode.mtime = time(mtime);
    }
    inode.ctime = now;
    txn.put_inode(ino, &inode);
    Ok(inode)
}

fn resize(txn: &mut Txn<'_>, inode: &mut Inode, size: u64) -> Result<()> {
    match inode.kind {
        FileKind::File => {}
        FileKind::Directory => return Err(Refusal::IsDirectory.into()),
        _ => return Err(Refusal::Invalid.into()),
    }
    if size > FILE_SIZE_MAX {
        return Err(Refusal::TooLarge.into());
    }
    txn.recharge(inode.size, size)?;
    inode.size = size;
    inode.dirty = true;
    inode.mtime = txn.now();
    Ok(())
}
