//! Access control lists of inodes: set, inherited, and kept in step with permission bits.

use super::xattr::{check_room, has_any};
use crate::acl::{ACCESS, Acl, DEFAULT};
use crate::attr::{Caller, FileKind, NewMode};
use crate::error::{Refusal, Result};
use crate::ids::Ino;
use crate::key;
use crate::record::Inode;
use crate::shard::{Records, Txn};

const SET_GID: u32 = 0o2000;

/// Whether an attribute is an access control list.
pub(super) fn is_list(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

/// Sets a list, or takes it away if `value` has no entries. An access list changes the permission bits; one that says
/// no more than they do is not kept.
pub(super) fn set(txn: &mut Txn<'_>, ino: Ino, caller: Caller, name: &[u8], value: &[u8]) -> Result<Inode> {
    let mut inode = txn.need_inode(ino)?;
    let mut list = Acl::decode(value)?;
    match inode.kind {
        FileKind::Symlink => return Err(Refusal::NotSupported.into()),
        FileKind::Directory => {}
        _ if name == DEFAULT => {
            return if list.is_some() { Err(Refusal::Access.into()) } else { Ok(inode) };
        }
        _ => {}
    }
    if name == ACCESS
        && let Some(access) = &list
    {
        inode.mode = access.apply_to(inode.mode);
        // The other groups of the caller are not known here: only the one it acts with counts.
        if caller.uid != 0 && caller.gid != inode.gid {
            inode.mode &= !SET_GID;
        }
        list = list.filter(|access| !access.is_minimal());
    }
    match list {
        Some(list) => {
            check_room(txn, ino, name)?;
            txn.put(key::xattr(txn.tenant(), ino, name), &list.encode());
        }
        None => txn.delete(key::xattr(txn.tenant(), ino, name)),
    }
    inode.has_xattrs = has_any(txn, ino)?;
    inode.ctime = txn.now();
    txn.put_inode(ino, &inode);
    Ok(inode)
}

/// Gives a new inode what its directory's default list says; without one the umask has decided. The caller writes the
/// inode.
pub(super) fn inherit(
    txn: &mut Txn<'_>,
    (parent, directory): (Ino, &Inode),
    (ino, inode): (Ino, &mut Inode),
    mode: NewMode,
) -> Result<()> {
    if inode.kind == FileKind::Symlink {
        return Ok(());
    }
    let Some(mut list) = stored(txn, parent, directory, DEFAULT)? else { return Ok(()) };
    if inode.kind == FileKind::Directory {
        txn.put(key::xattr(txn.tenant(), ino, DEFAULT), &list.encode());
        inode.has_xattrs = true;
    }
    inode.mode = list.inherit(inode.mode & !0o777 | mode.mode & 0o777);
    if !list.is_minimal() {
        txn.put(key::xattr(txn.tenant(), ino, ACCESS), &list.encode());
        inode.has_xattrs = true;
    }
    Ok(())
}

/// The permission bits of an inode have been changed: its access list follows.
pub(super) fn follow(txn: &mut Txn<'_>, ino: Ino, inode: &Inode) -> Result<()> {
    if let Some(mut list) = stored(txn, ino, inode, ACCESS)? {
        list.follow(inode.mode);
        txn.put(key::xattr(txn.tenant(), ino, ACCESS), &list.encode());
    }
    Ok(())
}

fn stored(txn: &Txn<'_>, ino: Ino, inode: &Inode, name: &[u8]) -> Result<Option<Acl>> {
    if !inode.has_xattrs {
        return Ok(None);
    }
    match txn.record::<Vec<u8>>(&key::xattr(txn.tenant(), ino, name))? {
        Some(value) => Ok(Acl::decode(&value).map_err(|_| Refusal::Io)?),
        None => Ok(None),
    }
}
