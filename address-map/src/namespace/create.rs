//! Making inodes.

use super::{acl, add_entry, entry_key, need_directory, object};
use crate::attr::{Caller, FileKind, NewMode};
use crate::error::{Refusal, Result};
use crate::ids::Ino;
use crate::limits::PATH_MAX;
use crate::name::Name;
use crate::record::{Entry, Inode, Layout};
use crate::shard::{Records, Txn};
use crate::wire::Make;

const SET_GID: u32 = 0o2000;

/// What was made, and the directory around it.
#[derive(Clone, Debug)]
pub struct Made {
    /// Number of the new inode.
    pub ino: Ino,
    /// The new inode.
    pub inode: Inode,
    /// The directory, as it is now.
    pub parent: Inode,
}

/// Makes `what` under a free name. `open` says that a regular file is opened for writing at once.
pub fn create(
    txn: &mut Txn<'_>,
    parent: Ino,
    name: &Name,
    caller: Caller,
    mode: NewMode,
    what: &Make,
    open: bool,
) -> Result<Made> {
    let directory = need_directory(txn, parent)?;
    create_in(txn, (parent, directory), name, caller, mode, what, open)
}

/// The same in a directory already read, whether its other entries are known or not.
pub(super) fn create_in(
    txn: &mut Txn<'_>,
    (parent, mut directory): (Ino, Inode),
    name: &Name,
    caller: Caller,
    mode: NewMode,
    what: &Make,
    open: bool,
) -> Result<Made> {
    let key = entry_key(txn, parent, name)?;
    if txn.entry(&key)?.is_some() {
        return Err(Refusal::Exists.into());
    }
    let ino = txn.new_ino()?;
    let mut inode = new_inode(txn, ino, parent, &directory, caller, mode, what, open)?;
    acl::inherit(txn, (parent, &directory), (ino, &mut inode), mode)?;
    add_entry(txn, &mut directory, key, &Entry::Inode { ino, kind: inode.kind });
    txn.put_inode(parent, &directory);
    txn.put_inode(ino, &inode);
    Ok(Made { ino, inode, parent: directory })
}

#[expect(clippy::too_many_arguments, reason = "the fields of an inode, gathered in one place")]
fn new_inode(
    txn: &Txn<'_>,
    ino: Ino,
    parent: Ino,
    directory: &Inode,
    caller: Caller,
    mode: NewMode,
    what: &Make,
    open: bool,
) -> Result<Inode> {
    let (kind, rdev, layout) = match what {
        Make::File => {
            let pool = txn.tenant_record()?.pool;
            (FileKind::File, 0, Layout::Object(object::address(txn.tenant(), pool, ino)))
        }
        Make::Directory => (FileKind::Directory, 0, Layout::None),
        Make::Symlink(target) if target.is_empty() || target.contains(&0) => {
            return Err(Refusal::Invalid.into());
        }
        Make::Symlink(target) if target.len() >= PATH_MAX => return Err(Refusal::NameTooLong.into()),
        Make::Symlink(target) => (FileKind::Symlink, 0, Layout::Inline(target.clone())),
        Make::Fifo => (FileKind::Fifo, 0, Layout::None),
        Make::Socket => (FileKind::Socket, 0, Layout::None),
        Make::CharDevice(rdev) => (FileKind::CharDevice, *rdev, Layout::None),
        Make::BlockDevice(rdev) => (FileKind::BlockDevice, *rdev, Layout::None),
    };
    let inherit_group = directory.mode & SET_GID != 0;
    let inherited_bit = if inherit_group && kind == FileKind::Directory { SET_GID } else { 0 };
    let now = txn.now();
    Ok(Inode {
        kind,
        mode: if kind == FileKind::Symlink { 0o777 } else { mode.masked() | inherited_bit },
        uid: caller.uid,
        gid: if inherit_group { directory.gid } else { caller.gid },
        nlink: if kind == FileKind::Directory { 2 } else { 1 },
        size: if let Layout::Inline(target) = &layout { target.len() as u64 } else { 0 },
        blocks: 0,
        rdev,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        parent,
        has_xattrs: false,
        dirty: open && kind == FileKind::File,
        layout,
    })
}

/// Makes the directories of `names` that are missing, owned by `caller`; answers the last one.
pub fn create_directories(txn: &mut Txn<'_>, names: &[Name], caller: Caller) -> Result<Ino> {
    let mut at = Ino::ROOT;
    for name in names {
        at = match txn.entry(&entry_key(txn, at, name)?)? {
            Some(Entry::Inode { ino, kind: FileKind::Directory }) => ino,
            Some(Entry::Inode { .. }) => return Err(Refusal::NotDirectory.into()),
            Some(Entry::Injected { .. }) => return Err(Refusal::CrossesShare.into()),
            None => create(txn, at, name, caller, NewMode::exactly(0o755), &Make::Directory, false)?.ino,
        };
    }
    Ok(at)
}
