//! Moving names: replace, refuse to replace, exchange.

use super::{add_entry, entry_key, link, need_directory, remove, take_entry};
use crate::attr::FileKind;
use crate::error::{Refusal, Result};
use crate::ids::{Ino, Slot};
use crate::key::{self, Key};
use crate::limits::DEPTH_MAX;
use crate::name::Name;
use crate::record::{Entry, Injection, Inode, Leads};
use crate::shard::{Records, Txn};
use crate::wire::RenameMode;

/// What a name that took part in a rename leads to, as it is now.
#[derive(Clone, Debug)]
pub enum Moved {
    /// An inode.
    Inode(Ino, Inode),
    /// The root of a share.
    Injected(Slot),
}

impl Moved {
    /// The entry that leads to it.
    pub fn entry(&self) -> Leads {
        match self {
            Moved::Inode(ino, _) => Leads::Inode(*ino),
            Moved::Injected(slot) => Leads::Share(*slot),
        }
    }
}

/// The outcome of a rename.
#[derive(Clone, Debug)]
pub struct Renamed {
    /// What moved.
    pub moved: Moved,
    /// What was replaced (`nlink` 0 if that was its last name) or exchanged.
    pub other: Option<Moved>,
    /// The directory it left.
    pub parent: Inode,
    /// The directory it is in now.
    pub new_parent: Inode,
}

/// One end of a rename.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Directory.
    pub parent: Ino,
    /// Name in it.
    pub name: &'a Name,
}

/// Moves `from` to `to`. A file replaced at its last name is kept while `in_use` says so.
pub fn rename(
    txn: &mut Txn<'_>,
    from: Place<'_>,
    to: Place<'_>,
    mode: RenameMode,
    in_use: &dyn Fn(Ino) -> bool,
) -> Result<Renamed> {
    let mut dirs = Directories::load(txn, from.parent, to.parent)?;
    let from_key = entry_key(txn, from.parent, from.name)?;
    let to_key = entry_key(txn, to.parent, to.name)?;
    let source = txn.entry(&from_key)?.ok_or(Refusal::NotFound)?;
    let target = txn.entry(&to_key)?;
    refuse_own_descendant(txn, &source, to.parent)?;

    let (moved, other) = match (mode, target) {
        (RenameMode::NoReplace, Some(_)) => return Err(Refusal::Exists.into()),
        (RenameMode::Exchange, None) => return Err(Refusal::NotFound.into()),
        (_, Some(target)) if target == source => {
            // Two names of one inode (or one name twice): nothing to do.
            let same = observe(txn, &source)?;
            return Ok(Renamed {
                moved: same,
                other: None,
                parent: dirs.source(),
                new_parent: dirs.target(),
            });
        }
        (RenameMode::Exchange, Some(target)) => {
            refuse_own_descendant(txn, &target, from.parent)?;
            take_entry(txn, dirs.source_mut(), from_key.clone(), &source);
            take_entry(txn, dirs.target_mut(), to_key.clone(), &target);
            add_entry(txn, dirs.source_mut(), from_key, &target);
            add_entry(txn, dirs.target_mut(), to_key, &source);
            let other = relocate(txn, &target, to.parent, from)?;
            (relocate(txn, &source, from.parent, to)?, Some(other))
        }
        (_, target) => {
            let replaced = match target {
                Some(target) => Some(replace(txn, &mut dirs, &source, &target, to, to_key.clone(), in_use)?),
                None => None,
            };
            take_entry(txn, dirs.source_mut(), from_key, &source);
            add_entry(txn, dirs.target_mut(), to_key, &source);
            (relocate(txn, &source, from.parent, to)?, replaced)
        }
    };
    dirs.store(txn, from.parent, to.parent);
    Ok(Renamed { moved, other, parent: dirs.source(), new_parent: dirs.target() })
}

/// The one or two directories of a rename, each held once.
struct Directories {
    from: Inode,
    to: Option<Inode>,
}

impl Directories {
    fn load(txn: &Txn<'_>, from: Ino, to: Ino) -> Result<Self> {
        let other = if from == to { None } else { Some(need_directory(txn, to)?) };
        Ok(Self { from: need_directory(txn, from)?, to: other })
    }

    fn source_mut(&mut self) -> &mut Inode {
        &mut self.from
    }

    fn target_mut(&mut self) -> &mut Inode {
        self.to.as_mut().unwrap_or(&mut self.from)
    }

    fn source(&self) -> Inode {
        self.from.clone()
    }

    fn target(&self) -> Inode {
        self.to.as_ref().unwrap_or(&self.from).clone()
    }

    fn store(&self, txn: &mut Txn<'_>, from: Ino, to: Ino) {
        txn.put_inode(from, &self.from);
        if let Some(inode) = &self.to {
            txn.put_inode(to, inode);
        }
    }
}

/// A directory cannot become its own descendant.
fn refuse_own_descendant(txn: &Txn<'_>, moving: &Entry, into: Ino) -> Result<()> {
    let Entry::Inode { ino: moving, kind: FileKind::Directory } = *moving else { return Ok(()) };
    let mut at = into;
    for _ in 0..DEPTH_MAX {
        match at {
            at if at == moving => return Err(Refusal::Invalid.into()),
            Ino::ROOT => return Ok(()),
            _ => at = txn.need_inode(at)?.parent,
        }
    }
    Err(Refusal::Invalid.into())
}

fn replace(
    txn: &mut Txn<'_>,
    dirs: &mut Directories,
    source: &Entry,
    target: &Entry,
    to: Place<'_>,
    to_key: Key,
    in_use: &dyn Fn(Ino) -> bool,
) -> Result<Moved> {
    let Entry::Inode { ino, kind } = *target else { return Err(Refusal::ShareRoot.into()) };
    let source_is_directory = super::is_directory(source);
    match (source_is_directory, kind == FileKind::Directory) {
        (true, false) => return Err(Refusal::NotDirectory.into()),
        (false, true) => return Err(Refusal::IsDirectory.into()),
        _ => {}
    }
    let gone = if source_is_directory {
        remove::drop_directory(txn, ino)?
    } else {
        remove::drop_name(txn, ino, to.parent, in_use)?
    };
    take_entry(txn, dirs.target_mut(), to_key, target);
    Ok(Moved::Inode(ino, gone))
}

/// What an entry leads to learns where it is found now.
fn relocate(txn: &mut Txn<'_>, entry: &Entry, from: Ino, to: Place<'_>) -> Result<Moved> {
    match *entry {
        Entry::Inode { ino, kind } => {
            let mut inode = txn.need_inode(ino)?;
            inode.ctime = txn.now();
            if kind == FileKind::Directory {
                inode.parent = to.parent;
            } else if from != to.parent {
                link::move_name(txn, ino, &mut inode, from, to.parent)?;
            }
            txn.put_inode(ino, &inode);
            Ok(Moved::Inode(ino, inode))
        }
        Entry::Injected { slot, .. } => {
            let key = key::injection(txn.tenant(), slot);
            let injection: Injection = txn.record(&key)?.ok_or(Refusal::NotFound)?;
            txn.put(key, &Injection { parent: to.parent, name: to.name.clone(), ..injection });
            Ok(Moved::Injected(slot))
        }
    }
}

fn observe(txn: &Txn<'_>, entry: &Entry) -> Result<Moved> {
    match *entry {
        Entry::Inode { ino, .. } => Ok(Moved::Inode(ino, txn.need_inode(ino)?)),
        Entry::Injected { slot, .. } => Ok(Moved::Injected(slot)),
    }
}
