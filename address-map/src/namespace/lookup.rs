//! From names to inodes.

use super::{entry_key, need_directory};
use crate::error::{Refusal, Result};
use crate::ids::Ino;
use crate::name::Name;
use crate::record::{Entry, Inode};
use crate::shard::Records;

/// Where a name of a directory leads.
pub fn entry<R: Records>(records: &R, parent: Ino, name: &Name) -> Result<Entry> {
    need_directory(records, parent)?;
    Ok(records.entry(&entry_key(records, parent, name)?)?.ok_or(Refusal::NotFound)?)
}

/// An inode that must exist.
pub fn inode<R: Records>(records: &R, ino: Ino) -> Result<Inode> {
    Ok(records.inode(ino)?.ok_or(Refusal::NotFound)?)
}

/// The name under which a directory holds an inode, found by looking at all of its entries.
pub fn name_of<R: Records>(records: &R, parent: Ino, ino: Ino) -> Result<Name> {
    let mut found = None;
    super::list::list(records, parent, 0, &mut |listed| {
        if matches!(listed.entry, Entry::Inode { ino: there, .. } if there == ino) {
            found = Some(listed.name);
        }
        Ok(found.is_none())
    })?;
    Ok(found.ok_or(Refusal::NotFound)?)
}

/// Follows `names` from the root of the tenant's own tree, neither through symlinks nor into shares. Answers the
/// directory that holds the last name, and where that leads.
pub fn walk<R: Records>(records: &R, names: &[Name]) -> Result<(Ino, Entry)> {
    let root = Entry::Inode { ino: Ino::ROOT, kind: crate::attr::FileKind::Directory };
    names.iter().try_fold((Ino::ROOT, root), |(_, at), name| match at {
        Entry::Inode { ino, .. } => Ok((ino, entry(records, ino, name)?)),
        Entry::Injected { .. } => Err(Refusal::CrossesShare.into()),
    })
}
