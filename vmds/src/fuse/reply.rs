//! Results of operations to replies of the kernel.

use fuser::{
    FileHandle, FileType, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use address_map::attr::FileKind;
use address_map::wire::Statfs;

use super::backing;
use super::convert::{self, AT_ONCE, errno, ino};
use crate::fs::error::Errno;
use crate::fs::{AttrBytes, Created, Done, Listing, Looked, Opened, Shown};

/// Size of a block in the answer to `statfs`, bytes.
const STATFS_BLOCK: u32 = 4096;

pub(super) fn looked(reply: ReplyEntry) -> impl Done<Looked> {
    move |looked| match looked {
        Ok(Looked::Found(shown)) => send_entry(reply, &shown),
        Ok(Looked::Absent { ttl }) if ttl.is_zero() => reply.error(fuser::Errno::ENOENT),
        Ok(Looked::Absent { ttl }) => reply.entry(&ttl, &convert::absent(), Generation(0)),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn entry(reply: ReplyEntry) -> impl Done<Shown> {
    move |shown| match shown {
        Ok(shown) => send_entry(reply, &shown),
        Err(error) => reply.error(errno(error)),
    }
}

fn send_entry(reply: ReplyEntry, shown: &Shown) {
    let attr = convert::attr(shown.node, &shown.attr);
    reply.entry_with_ttls(&shown.attr_ttl, &shown.entry_ttl, &attr, Generation(0));
}

pub(super) fn attr(reply: ReplyAttr) -> impl Done<Shown> {
    move |shown| match shown {
        Ok(shown) => reply.attr(&shown.attr_ttl, &convert::attr(shown.node, &shown.attr)),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn empty(reply: ReplyEmpty) -> impl Done<()> {
    move |done: Result<(), Errno>| match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn written(reply: ReplyWrite) -> impl Done<u32> {
    move |written| match written {
        Ok(written) => reply.written(written),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn xattr(reply: ReplyXattr) -> impl Done<AttrBytes> {
    move |bytes| match bytes {
        Ok(AttrBytes::Bytes(bytes)) => reply.data(&bytes),
        Ok(AttrBytes::Size(size)) => reply.size(size),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn statfs(reply: ReplyStatfs) -> impl Done<Statfs> {
    move |statfs: Result<Statfs, Errno>| match statfs {
        Ok(s) => {
            let block = u64::from(STATFS_BLOCK);
            let (blocks, free) = (s.bytes / block, s.bytes_free / block);
            let name_max = address_map::limits::NAME_MAX as u32;
            reply.statfs(blocks, free, free, s.inodes, s.inodes_free, STATFS_BLOCK, name_max, STATFS_BLOCK);
        }
        Err(error) => reply.error(errno(error)),
    }
}

/// How the kernel shall use a handle that was opened with these flags.
fn open_flags(opened: &Opened, asked: i32) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    // Otherwise nothing is kept back until a file is closed, so the kernel need not say that it is.
    flags.set(FopenFlags::FOPEN_NOFLUSH, !opened.flush);
    // Out of the page cache an append comes in pieces, between which others may append to the file.
    let whole = convert::appends(asked) && opened.backing.is_none();
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.seen || whole);
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags
}

pub(super) fn open(reply: ReplyOpen, asked: i32) -> impl Done<Opened> {
    move |opened| match opened {
        Ok(opened) => {
            let (handle, flags) = (FileHandle(opened.handle.0), open_flags(&opened, asked));
            match opened.backing {
                Some(id) => backing::opened(reply, handle, flags, id),
                None => reply.opened(handle, flags),
            }
        }
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn create(reply: ReplyCreate, asked: i32) -> impl Done<Created> {
    move |created| match created {
        Ok(Created { file, opened }) => {
            let ttl = file.entry_ttl.min(file.attr_ttl);
            let attr = convert::attr(file.node, &file.attr);
            let (handle, flags) = (FileHandle(opened.handle.0), open_flags(&opened, asked));
            match opened.backing {
                Some(id) => backing::created(reply, &ttl, &attr, handle, flags, id),
                None => reply.created(&ttl, &attr, Generation(0), handle, flags),
            }
        }
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn names(mut reply: ReplyDirectory) -> impl Done<Listing> {
    move |listing: Result<Listing, Errno>| match listing {
        Ok(listing) => {
            for listed in listing.entries() {
                let kind = convert::kind(listed.entry.map_or(FileKind::Directory, |entry| entry.kind()));
                let name = OsStr::from_bytes(listed.name);
                if reply.add(ino(listed.node), listed.cookie, kind, name) {
                    break;
                }
            }
            reply.ok();
        }
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn names_and_attrs(mut reply: ReplyDirectoryPlus) -> impl Done<Listing> {
    move |listing: Result<Listing, Errno>| match listing {
        Ok(listing) => {
            for listed in listing.entries() {
                let (ttl, attr) = match listed.entry.map(|entry| listing.show(entry)) {
                    None => (AT_ONCE, convert::placeholder(listed.node, FileType::Directory)),
                    Some(Some(shown)) => (shown.entry_ttl, convert::attr(shown.node, &shown.attr)),
                    Some(None) => break,
                };
                let name = OsStr::from_bytes(listed.name);
                if reply.add(ino(listed.node), listed.cookie, name, &ttl, &attr, Generation(0)) {
                    break;
                }
            }
            reply.ok();
        }
        Err(error) => reply.error(errno(error)),
    }
}
