//! Values of the kernel to values of ours and back.

use std::time::{Duration, SystemTime};

use address_map::attr::{Attr, Caller, FileKind, NewMode, SetTime, Timestamp};
use address_map::ids::NodeId;
use address_map::wire::{Make, RenameMode, XattrMode};
use fuser::{FileAttr, FileType, INodeNo, RenameFlags, Request, TimeOrNow, WriteFlags};

use crate::fs::WriteTo;
use crate::fs::error::Errno;

/// Size of I/O that programs are advised to use, bytes.
const BLOCK_SIZE: u32 = 4096;
/// `FUSE_UNIQUE_RESEND`: set in the number of a request that was sent before.
const SENT_AGAIN: u64 = 1 << 63;
/// Bits of a mode that are permissions.
const PERMISSIONS: u32 = 0o7777;

pub(super) fn node(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

pub(super) fn ino(node: NodeId) -> INodeNo {
    INodeNo(node.0)
}

pub(super) fn errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.code())
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

pub(super) fn kind(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

pub(super) fn attr(node: NodeId, attr: &Attr) -> FileAttr {
    FileAttr {
        ino: ino(node),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.into(),
        mtime: attr.mtime.into(),
        ctime: attr.ctime.into(),
        crtime: attr.crtime.into(),
        kind: kind(attr.kind),
        // Twelve bits.
        perm: (attr.mode & PERMISSIONS) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// What stands for "no inode" in an entry: the kernel remembers that the name leads nowhere.
pub(super) fn absent() -> FileAttr {
    placeholder(NodeId(0), FileType::RegularFile)
}

/// Attributes of `.` and `..`, of which the kernel uses only number and kind.
pub(super) fn placeholder(node: NodeId, kind: FileType) -> FileAttr {
    FileAttr {
        ino: ino(node),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// The permission bits of a mode.
pub(super) fn permissions(mode: u32) -> u32 {
    mode & PERMISSIONS
}

/// What a new inode is asked for.
pub(super) fn new_mode(mode: u32, umask: u32) -> NewMode {
    NewMode { mode: permissions(mode), umask }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::SpecificTime(time) => SetTime::To(specific(time)),
        TimeOrNow::Now => SetTime::Now,
    }
}

/// The time the kernel means. Of a time before 1970 `fuser` takes the fraction off where it belongs on top.
fn specific(time: SystemTime) -> Timestamp {
    match SystemTime::UNIX_EPOCH.duration_since(time) {
        Ok(before) if !before.is_zero() => {
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            Timestamp::new(-seconds, before.subsec_nanos())
        }
        _ => time.into(),
    }
}

/// What `mknod` makes; directories and symlinks have calls of their own.
pub(super) fn make(mode: u32, rdev: u32) -> Option<Make> {
    match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => Some(Make::File),
        libc::S_IFIFO => Some(Make::Fifo),
        libc::S_IFSOCK => Some(Make::Socket),
        libc::S_IFCHR => Some(Make::CharDevice(rdev)),
        libc::S_IFBLK => Some(Make::BlockDevice(rdev)),
        _ => None,
    }
}

pub(super) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    if flags.is_empty() {
        Some(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(RenameMode::Exchange)
    } else {
        None
    }
}

pub(super) fn xattr_mode(flags: i32) -> Option<XattrMode> {
    match flags {
        0 => Some(XattrMode::Set),
        libc::XATTR_CREATE => Some(XattrMode::Create),
        libc::XATTR_REPLACE => Some(XattrMode::Replace),
        _ => None,
    }
}

/// Whether flags of `open` allow writing.
pub(super) fn writes(flags: i32) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY
}

/// Whether flags of `open` say that writes go to the end.
pub(super) fn appends(flags: i32) -> bool {
    flags & libc::O_APPEND != 0
}

/// Where a write goes: what comes from the page cache has its place, what a program appends goes to the end.
pub(super) fn write_to(unique: u64, open_flags: i32, flags: WriteFlags, offset: u64) -> WriteTo {
    if appends(open_flags) && !flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
        WriteTo::End { believed: offset, again: unique & SENT_AGAIN != 0 }
    } else {
        WriteTo::Offset(offset)
    }
}

/// Nothing is kept.
pub(super) const AT_ONCE: Duration = Duration::ZERO;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_renames_are_not_guessed_at() {
        let both = RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE;
        assert_eq!(rename_mode(both), None);
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT), None);
        assert_eq!(rename_mode(RenameFlags::from_bits_retain(1 << 7)), None);
        assert_eq!(rename_mode(RenameFlags::empty()), Some(RenameMode::Replace));
    }

    #[test]
    fn appends_go_to_the_end_unless_they_come_from_the_page_cache() {
        let appended = libc::O_WRONLY | libc::O_APPEND;
        let end = |again| WriteTo::End { believed: 7, again };
        assert_eq!(write_to(2, appended, WriteFlags::empty(), 7), end(false));
        assert_eq!(write_to(SENT_AGAIN | 2, appended, WriteFlags::empty(), 7), end(true));
        assert_eq!(write_to(2, appended, WriteFlags::FUSE_WRITE_CACHE, 7), WriteTo::Offset(7));
        assert_eq!(write_to(2, libc::O_WRONLY, WriteFlags::empty(), 7), WriteTo::Offset(7));
    }

    #[test]
    fn modes_name_what_to_make() {
        assert_eq!(make(libc::S_IFREG | 0o644, 0), Some(Make::File));
        assert_eq!(make(libc::S_IFBLK, 7), Some(Make::BlockDevice(7)));
        assert_eq!(make(libc::S_IFDIR, 0), None);
        assert!(writes(libc::O_WRONLY) && writes(libc::O_RDWR | libc::O_APPEND) && !writes(libc::O_RDONLY));
    }
}
