//! What is left when a history is over: the whole tree.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;

use super::act::Seen;
use super::attributes;
use super::look::{Look, Memory};
use super::step::{On, Op};

/// Room for the value of an extended attribute, bytes.
const VALUE_ROOM: usize = 4096;

/// What was found under each path.
pub(super) type Tree = BTreeMap<PathBuf, Entry>;

/// What is known of one name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    look: Look,
    /// The first path that leads to the same inode.
    same_as: PathBuf,
    /// Bytes of a file, target of a link.
    content: Option<Seen>,
    xattrs: Vec<(String, Seen)>,
}

/// Reads everything below a directory. What cannot be read, or a listing that names another inode than the name leads
/// to, is an error.
pub(super) fn read(root: &Path, memory: &mut Memory) -> Result<Tree, String> {
    let mut entries = Tree::new();
    let mut first = HashMap::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", root.join(&dir).display());
        let listing = fs::read_dir(root.join(&dir)).and_then(|list| list.collect::<Result<Vec<_>, _>>());
        let mut listing = listing.map_err(|e| failed(&e))?;
        listing.sort_unstable_by_key(fs::DirEntry::file_name);
        for listed in listing {
            let path = listed.path();
            let known = rustix::fs::lstat(&path).map_err(|e| failed(&e))?;
            if known.st_ino != listed.ino() {
                return Err(failed(&format!("{:?} is listed with another inode number", listed.file_name())));
            }
            let below = dir.join(listed.file_name());
            if listed.file_type().map_err(|e| failed(&e))?.is_dir() {
                dirs.push(below.clone());
            }
            let same_as = first.entry(known.st_ino).or_insert_with(|| below.clone()).clone();
            let entry = one(&path, same_as, memory).map_err(|e| failed(&e))?;
            entries.insert(below, entry);
        }
    }
    Ok(entries)
}

fn one(path: &Path, same_as: PathBuf, memory: &mut Memory) -> Result<Entry, Errno> {
    let look = memory.look(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    let failed = |error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let content = if path.is_symlink() {
        Some(Seen::Bytes(fs::read_link(path).map_err(failed)?.as_os_str().as_bytes().to_vec()))
    } else if path.is_file() {
        Some(Seen::Bytes(fs::read(path).map_err(failed)?))
    } else {
        None
    };
    Ok(Entry { look, same_as, content, xattrs: xattrs(path)? })
}

fn xattrs(path: &Path) -> Result<Vec<(String, Seen)>, Errno> {
    let on = On::Path(super::step::Names(vec![]));
    let Seen::Names(names) = attributes::act_at(path, false, 0, &Op::ListXattr { on })? else {
        return Ok(vec![]);
    };
    let value = |name: &String| {
        let mut value = vec![0; VALUE_ROOM];
        let len = rustix::fs::lgetxattr(path, name.as_str(), &mut value[..])?;
        value.truncate(len);
        Ok((name.clone(), Seen::Bytes(value)))
    };
    names.iter().map(value).collect()
}

/// What differs between two trees; nothing if they are alike.
pub(super) fn difference(local: &Tree, tried: &Tree) -> Option<String> {
    let more = tried.keys().filter(|path| !local.contains_key(*path));
    let path = local.keys().chain(more).find(|path| local.get(*path) != tried.get(*path))?;
    Some(format!("{}\n  local {:?}\n  tried {:?}", path.display(), local.get(path), tried.get(path)))
}
