//! Hard links, and the records that say in which directories a file with several names is found.

use super::{add_entry, entry_key, need_directory};
use crate::attr::FileKind;
use crate::error::{MapError, Refusal, Result};
use crate::ids::Ino;
use crate::key;
use crate::limits::LINK_MAX;
use crate::name::Name;
use crate::record::{Entry, Inode, LinkRecord};
use crate::shard::{Records, Txn};

use super::create::Made;

/// Gives an inode another name.
pub fn link(txn: &mut Txn<'_>, ino: Ino, parent: Ino, name: &Name) -> Result<Made> {
    let mut inode = txn.need_inode(ino)?;
    match (inode.kind, inode.nlink) {
        (FileKind::Directory, _) => return Err(Refusal::NotPermitted.into()),
        (_, 0) => return Err(Refusal::NotFound.into()),
        (_, LINK_MAX..) => return Err(Refusal::TooManyLinks.into()),
        _ => {}
    }
    let mut directory = need_directory(txn, parent)?;
    let key = entry_key(txn, parent, name)?;
    if txn.entry(&key)?.is_some() {
        return Err(Refusal::Exists.into());
    }
    note_name(txn, ino, &mut inode, parent)?;
    inode.ctime = txn.now();
    add_entry(txn, &mut directory, key, &Entry::Inode { ino, kind: inode.kind });
    txn.put_inode(parent, &directory);
    txn.put_inode(ino, &inode);
    Ok(Made { ino, inode, parent: directory })
}

/// One more name in `parent`: counts it. The caller writes the inode.
fn note_name(txn: &mut Txn<'_>, ino: Ino, inode: &mut Inode, parent: Ino) -> Result<()> {
    if inode.nlink == 1 {
        let first = key::link(txn.tenant(), ino, inode.parent);
        txn.put(first, &LinkRecord { names: 1 });
    }
    inode.nlink += 1;
    bump(txn, ino, parent, 1)
}

/// One name fewer in `parent`, at least one stays: counts it. The caller writes the inode.
pub(super) fn forget_name(txn: &mut Txn<'_>, ino: Ino, inode: &mut Inode, parent: Ino) -> Result<()> {
    bump(txn, ino, parent, -1)?;
    inode.nlink -= 1;
    if inode.nlink == 1 {
        let &[last] = recorded_directories(txn, ino)?.as_slice() else {
            tracing::error!(tenant = txn.tenant().0, ino = ino.0, "link records do not match the link count");
            return Err(Refusal::Io.into());
        };
        inode.parent = last;
        txn.delete(key::link(txn.tenant(), ino, last));
    }
    Ok(())
}

/// A name of a file moves between directories. The caller writes the inode.
pub(super) fn move_name(txn: &mut Txn<'_>, ino: Ino, inode: &mut Inode, from: Ino, to: Ino) -> Result<()> {
    if inode.nlink <= 1 {
        inode.parent = to;
        return Ok(());
    }
    bump(txn, ino, from, -1)?;
    bump(txn, ino, to, 1)
}

fn bump(txn: &mut Txn<'_>, ino: Ino, parent: Ino, by: i32) -> Result<()> {
    let key = key::link(txn.tenant(), ino, parent);
    let names = txn.record::<LinkRecord>(&key)?.map_or(0, |record| record.names);
    match names.checked_add_signed(by) {
        Some(0) => txn.delete(key),
        Some(names) => txn.put(key, &LinkRecord { names }),
        None => return Err(MapError::Refused(Refusal::Io)),
    }
    Ok(())
}

/// The directories an inode has names in: one for most, several for hard-linked files. A file without a name counts
/// as being where its last name was.
pub fn directories<R: Records>(records: &R, ino: Ino, inode: &Inode) -> Result<Vec<Ino>> {
    if inode.kind == FileKind::Directory || inode.nlink <= 1 {
        return Ok(vec![inode.parent]);
    }
    recorded_directories(records, ino)
}

fn recorded_directories<R: Records>(records: &R, ino: Ino) -> Result<Vec<Ino>> {
    let mut found = Vec::new();
    records.scan_prefix(&key::links(records.tenant(), ino), &mut |key, _| {
        found.extend(key::parse_link(key).map(|(_, parent)| parent));
        Ok(true)
    })?;
    Ok(found)
}
