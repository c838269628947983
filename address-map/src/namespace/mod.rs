//! The operations of a namespace, one file each. Reading ones take any [`Records`], changing ones a [`Txn`]: each
//! is one transaction on one shard.
//!
//! Permission bits are the kernel's business (`default_permissions`); these functions keep the tree well-formed and
//! the counters exact, whoever calls.

pub mod acl;
pub mod adopt;
pub mod attr;
pub mod audit;
pub mod contents;
pub mod create;
pub mod link;
pub mod list;
pub mod lookup;
pub mod object;
pub mod remove;
pub mod rename;
pub mod replay;
pub mod share;
pub mod tenant;
pub mod xattr;

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::attr::FileKind;
use crate::error::{Refusal, Result};
use crate::ids::Ino;
use crate::key::{self, Key};
use crate::name::Name;
use crate::record::{Entry, Inode};
use crate::shard::{Records, Txn};

/// Cookies below this stand for the beginning of a directory, `.` and `..`.
const FIRST_COOKIE: u64 = 3;

/// Where a name stands in its directory: a keyed hash, so the position is stable while other names come and go, and
/// nobody without the key can make names meet. 63 bits, at least [`FIRST_COOKIE`].
pub fn cookie(name_key: u128, name: &Name) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(name_key as u64, (name_key >> 64) as u64);
    hasher.write(name.as_bytes());
    (hasher.finish() >> 1).max(FIRST_COOKIE)
}

/// The key of a name's entry.
fn entry_key<R: Records>(records: &R, parent: Ino, name: &Name) -> Result<Key> {
    let name_key = records.tenant_record()?.name_key;
    Ok(key::entry(records.tenant(), parent, cookie(name_key, name), name))
}

/// A directory that must exist, and whose entries are known.
fn need_directory<R: Records>(records: &R, ino: Ino) -> Result<Inode> {
    let inode = records.inode(ino)?.ok_or(Refusal::NotFound)?;
    adopt::need_listed(records.tenant(), ino, &inode)?;
    match inode.kind {
        FileKind::Directory => Ok(inode),
        _ => Err(Refusal::NotDirectory.into()),
    }
}

/// Whether an entry counts as a sub-directory of its parent.
fn is_directory(entry: &Entry) -> bool {
    let (Entry::Inode { kind, .. } | Entry::Injected { kind, .. }) = entry;
    *kind == FileKind::Directory
}

/// Adds a name to a directory already read; the caller writes the directory back.
fn add_entry(txn: &mut Txn<'_>, directory: &mut Inode, key: Key, entry: &Entry) {
    directory.size += 1;
    directory.nlink += u32::from(is_directory(entry));
    touch(txn, directory);
    txn.put(key, entry);
}

/// Takes a name out of a directory already read; the caller writes the directory back.
fn take_entry(txn: &mut Txn<'_>, directory: &mut Inode, key: Key, entry: &Entry) {
    directory.size = directory.size.saturating_sub(1);
    directory.nlink -= u32::from(is_directory(entry));
    touch(txn, directory);
    txn.delete(key);
}

/// Marks a directory's contents as changed now.
fn touch(txn: &Txn<'_>, directory: &mut Inode) {
    directory.mtime = txn.now();
    directory.ctime = txn.now();
}
