//! Objects of a bucket that were there before, as files: nothing of them is copied, and they stay somebody else's.
//!
//! A directory whose objects have not been listed yet ([`Progress::Unlisted`]) says so to whoever asks for its entries
//! ([`MapError::Unlisted`]). Entries are added to it by [`add`], where nobody sees them before [`listed`]; adding one again
//! changes nothing, so listing may be begun again at any time.

use super::create::{Made, create_in};
use super::entry_key;
use crate::attr::{Caller, FileKind, NewMode, Timestamp};
use crate::error::{MapError, Refusal, Result};
use crate::ids::{Ino, TenantId};
use crate::name::Name;
use crate::record::{Adopted, Entry, Inode, Layout, Progress, StoredObject};
use crate::shard::{Records, Txn};
use crate::wire::Make;

/// What is to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum New {
    /// A directory whose entries are added one by one.
    Directory,
    /// A directory whose objects have not been listed; all of their keys begin with this.
    Unlisted(String),
    /// A file.
    File {
        /// Its object.
        stored: StoredObject,
        /// When the object was made.
        modified: Timestamp,
    },
}

/// What was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Its number.
    pub ino: Ino,
    /// The name it has got.
    pub name: Name,
    /// It was not there before.
    pub is_new: bool,
}

/// Refuses to work on a directory that has not been listed.
pub(super) fn need_listed(tenant: TenantId, ino: Ino, inode: &Inode) -> Result<()> {
    match &inode.layout {
        Layout::Adopted(Adopted { progress: Progress::Unlisted, .. }) => Err(MapError::Unlisted(tenant, ino)),
        _ => Ok(()),
    }
}

/// What the entries of a directory are to be, or are; `None`: it is an ordinary one, or none.
pub fn adopted<R: Records>(records: &R, ino: Ino) -> Result<Option<Adopted>> {
    Ok(match records.inode(ino)?.map(|inode| inode.layout) {
        Some(Layout::Adopted(adopted)) => Some(adopted),
        _ => None,
    })
}

/// Makes the objects of a bucket the entries of an empty directory.
///
/// # Errors
/// [`Refusal::NotEmpty`]: it has entries, or had other objects before.
pub fn begin(txn: &mut Txn<'_>, ino: Ino, adopted: &Adopted) -> Result<Inode> {
    let mut inode = super::need_directory(txn, ino)?;
    if inode.size > 0 || inode.nlink == 0 || inode.layout != Layout::None {
        return Err(Refusal::NotEmpty.into());
    }
    inode.layout = Layout::Adopted(adopted.clone());
    txn.put_inode(ino, &inode);
    Ok(inode)
}

/// Notes how far a directory has come. One that is an ordinary one now stays so.
pub fn advance(txn: &mut Txn<'_>, ino: Ino, progress: Progress) -> Result<()> {
    let mut inode = txn.need_inode(ino)?;
    if let Layout::Adopted(adopted) = &mut inode.layout {
        adopted.progress = progress;
        txn.put_inode(ino, &inode);
    }
    Ok(())
}

/// Adds an entry under the first of `names` that is free, or leads to the same already.
///
/// # Errors
/// [`Refusal::Exists`]: something else has all the names. [`Refusal::Quota`].
pub fn add(txn: &mut Txn<'_>, parent: Ino, names: &[Name], of: &Adopted, new: &New) -> Result<Added> {
    for name in names {
        match txn.entry(&entry_key(txn, parent, name)?)? {
            None => {
                let ino = make(txn, parent, name, of, new)?;
                return Ok(Added { ino, name: name.clone(), is_new: true });
            }
            Some(Entry::Inode { ino, kind }) if is_same(txn, ino, kind, new)? => {
                return Ok(Added { ino, name: name.clone(), is_new: false });
            }
            Some(_) => {}
        }
    }
    Err(Refusal::Exists.into())
}

fn is_same(txn: &Txn<'_>, ino: Ino, kind: FileKind, new: &New) -> Result<bool> {
    match new {
        New::Directory | New::Unlisted(_) => Ok(kind == FileKind::Directory),
        New::File { stored, .. } => match txn.need_inode(ino)?.layout {
            Layout::Stored(there) => Ok(there.object == stored.object),
            _ => Ok(false),
        },
    }
}

fn make(txn: &mut Txn<'_>, parent: Ino, name: &Name, of: &Adopted, new: &New) -> Result<Ino> {
    let directory = txn.need_inode(parent)?;
    if directory.kind != FileKind::Directory {
        return Err(Refusal::NotDirectory.into());
    }
    let (times, unlisted) =
        ((directory.mtime, directory.ctime), need_listed(txn.tenant(), parent, &directory).is_err());
    let caller = Caller { uid: of.uid, gid: of.gid };
    let (what, mode) = match new {
        New::File { .. } => (Make::File, of.mode),
        New::Directory | New::Unlisted(_) => (Make::Directory, directory_mode(of.mode)),
    };
    let Made { ino, mut inode, parent: mut directory } =
        create_in(txn, (parent, directory), name, caller, NewMode::exactly(mode), &what, false)?;
    match new {
        New::Directory => {}
        New::Unlisted(prefix) => {
            let (prefix, progress) = (prefix.clone(), Progress::Unlisted);
            inode.layout = Layout::Adopted(Adopted { prefix, progress, ..of.clone() });
        }
        New::File { stored, modified } => {
            txn.recharge(0, stored.size)?;
            (inode.size, inode.blocks) = (stored.size, stored.size.div_ceil(512));
            (inode.mtime, inode.atime) = (*modified, *modified);
            inode.layout = Layout::Stored(stored.clone());
        }
    }
    txn.put_inode(ino, &inode);
    if unlisted {
        // What is found when somebody looks was there before.
        (directory.mtime, directory.ctime) = times;
        txn.put_inode(parent, &directory);
    }
    Ok(ino)
}

/// Permission bits of a directory around files with these: whoever may read it may search it.
pub fn directory_mode(mode: u32) -> u32 {
    mode | (mode & 0o444) >> 2
}

/// All objects of a directory are entries now; those that are directories may not be listed yet.
pub fn listed(txn: &mut Txn<'_>, ino: Ino) -> Result<()> {
    advance(txn, ino, Progress::Complete)
}
