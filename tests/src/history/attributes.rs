//! Calls on attributes, extended attributes and listings: by path or on an open file.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, RawDir, SeekFrom, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid,
};
use rustix::io::Errno;

use super::act::Seen;
use super::bytes::pattern;
use super::calls;
use super::step::{Op, Time};

/// Room for entries of a directory that are read at a time: little, so that listings take several calls. Bytes.
const LIST_ROOM: usize = 512;
/// Room for names of extended attributes, bytes.
const XATTR_ROOM: usize = 4096;

/// The call of step `number` on what a path leads to, or on the path itself.
pub(super) fn act_at(path: &Path, follow: bool, number: u64, op: &Op) -> Result<Seen, Errno> {
    let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    match op {
        Op::Truncate { size, .. } => calls::truncate(path, *size)?,
        Op::Chmod { mode, .. } => rustix::fs::chmod(path, Mode::from_raw_mode(mode.0))?,
        Op::Chown { user, group, .. } => {
            rustix::fs::chownat(CWD, path, user.map(Uid::from_raw), group.map(Gid::from_raw), flags)?
        }
        Op::Times { atime, mtime, .. } => rustix::fs::utimensat(CWD, path, &times(*atime, *mtime), flags)?,
        Op::SetXattr { name, len, flags, .. } => {
            let name: &str = name;
            let set = if follow { rustix::fs::setxattr } else { rustix::fs::lsetxattr };
            set(path, name, &pattern(number, *len), *flags)?;
        }
        Op::GetXattr { name, room, .. } => {
            let mut value = vec![0; *room];
            let name: &str = name;
            let get = if follow { rustix::fs::getxattr } else { rustix::fs::lgetxattr };
            let len = get(path, name, &mut value[..])?;
            return Ok(value_or_size(value, len));
        }
        Op::RemoveXattr { name, .. } => {
            let name: &str = name;
            let remove = if follow { rustix::fs::removexattr } else { rustix::fs::lremovexattr };
            remove(path, name)?;
        }
        Op::ListXattr { .. } => {
            let mut names = vec![0; XATTR_ROOM];
            let list = if follow { rustix::fs::listxattr } else { rustix::fs::llistxattr };
            let len = list(path, &mut names[..])?;
            return Ok(sorted_names(&names[..len]));
        }
        Op::List { .. } => {
            let more = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more;
            return list(&rustix::fs::open(path, flags, Mode::empty())?);
        }
        other => unreachable!("{other:?} is not about attributes"),
    }
    Ok(Seen::Done)
}

/// The call of step `number` on an open file.
pub(super) fn act_on(file: &OwnedFd, number: u64, op: &Op) -> Result<Seen, Errno> {
    match op {
        Op::Truncate { size, .. } => rustix::fs::ftruncate(file, *size)?,
        Op::Chmod { mode, .. } => rustix::fs::fchmod(file, Mode::from_raw_mode(mode.0))?,
        Op::Chown { user, group, .. } => {
            rustix::fs::fchown(file, user.map(Uid::from_raw), group.map(Gid::from_raw))?;
        }
        Op::Times { atime, mtime, .. } => rustix::fs::futimens(file, &times(*atime, *mtime))?,
        Op::SetXattr { name, len, flags, .. } => {
            rustix::fs::fsetxattr(file, *name, &pattern(number, *len), *flags)?;
        }
        Op::GetXattr { name, room, .. } => {
            let mut value = vec![0; *room];
            let len = rustix::fs::fgetxattr(file, *name, &mut value[..])?;
            return Ok(value_or_size(value, len));
        }
        Op::RemoveXattr { name, .. } => rustix::fs::fremovexattr(file, *name)?,
        Op::ListXattr { .. } => {
            let mut names = vec![0; XATTR_ROOM];
            let len = rustix::fs::flistxattr(file, &mut names[..])?;
            return Ok(sorted_names(&names[..len]));
        }
        Op::List { .. } => {
            rustix::fs::seek(file, SeekFrom::Start(0))?;
            return list(file);
        }
        other => unreachable!("{other:?} is not about attributes"),
    }
    Ok(Seen::Done)
}

/// A call without room answers only the size. (`rustix` says 0 then.)
fn value_or_size(mut value: Vec<u8>, len: usize) -> Seen {
    value.truncate(len);
    Seen::Bytes(value)
}

fn sorted_names(names: &[u8]) -> Seen {
    let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    sorted(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

fn sorted(mut names: Vec<String>) -> Seen {
    names.sort_unstable();
    Seen::Names(names)
}

/// Names and kinds of the entries behind the position of a directory.
fn list(dir: impl AsFd) -> Result<Seen, Errno> {
    let mut room = [MaybeUninit::uninit(); LIST_ROOM];
    let mut entries = RawDir::new(dir, &mut room);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        names.push(format!("{} {:?}", entry.file_name().to_string_lossy(), entry.file_type()));
    }
    Ok(sorted(names))
}

fn times(atime: Time, mtime: Time) -> Timestamps {
    let time = |time| match time {
        Time::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Time::Omit => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Time::At(seconds, nanoseconds) => Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    };
    Timestamps { last_access: time(atime), last_modification: time(mtime) }
}
