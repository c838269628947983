//! The only place that knows `fuser`: requests are decoded, handed to [`crate::fs`], and answered.

mod backing;
mod convert;
mod kernel;
pub(crate) mod notices;
mod session;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use address_map::attr::{AttrChange, FileKind};
use address_map::wire::Make;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tracing::trace;

use crate::fs::error::Errno;
use crate::fs::{AttrBytes, Fs, Handle, Looked, Opened, Place, Seek, Shown};
use convert::{AT_ONCE, caller, errno, ino, node};
pub(crate) use session::serve;

/// Size of a block in the answer to `statfs`, bytes.
const STATFS_BLOCK: u32 = 4096;

/// The mount, as `fuser` calls it.
struct Mount {
    fs: Arc<Fs>,
}

fn note(op: &'static str, request: &Request, on: INodeNo) {
    trace!(op, ino = on.0, request = request.unique().0, "request");
}

fn reply_entry(reply: ReplyEntry) -> impl FnOnce(Result<Shown, Errno>) + Send + 'static {
    move |shown| match shown {
        Ok(shown) => send_entry(reply, &shown),
        Err(error) => reply.error(errno(error)),
    }
}

fn send_entry(reply: ReplyEntry, shown: &Shown) {
    let attr = convert::attr(shown.node, &shown.attr);
    reply.entry_with_ttls(&shown.attr_ttl, &shown.entry_ttl, &attr, Generation(0));
}

fn reply_attr(reply: ReplyAttr) -> impl FnOnce(Result<Shown, Errno>) + Send + 'static {
    move |shown| match shown {
        Ok(shown) => reply.attr(&shown.attr_ttl, &convert::attr(shown.node, &shown.attr)),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_empty(reply: ReplyEmpty) -> impl FnOnce(Result<(), Errno>) + Send + 'static {
    move |done| match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_written(reply: ReplyWrite) -> impl FnOnce(Result<u32, Errno>) + Send + 'static {
    move |written| match written {
        Ok(written) => reply.written(written),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_xattr(reply: ReplyXattr) -> impl FnOnce(Result<AttrBytes, Errno>) + Send + 'static {
    move |bytes| match bytes {
        Ok(AttrBytes::Bytes(bytes)) => reply.data(&bytes),
        Ok(AttrBytes::Size(size)) => reply.size(size),
        Err(error) => reply.error(errno(error)),
    }
}

fn open_flags(opened: &Opened) -> FopenFlags {
    // Nothing is kept back until a file is closed, so the kernel need not say that it is.
    let mut flags = FopenFlags::FOPEN_NOFLUSH;
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.seen);
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags
}

impl Filesystem for Mount {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        if session::negotiate(config)? {
            self.fs.allow_passthrough();
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        note("lookup", request, parent);
        self.fs.lookup(node(parent), name.as_bytes(), move |looked| match looked {
            Ok(Looked::Found(shown)) => send_entry(reply, &shown),
            Ok(Looked::Absent { ttl }) if ttl.is_zero() => reply.error(fuser::Errno::ENOENT),
            Ok(Looked::Absent { ttl }) => reply.entry(&ttl, &convert::absent(), Generation(0)),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn forget(&self, request: &Request, of: INodeNo, _nlookup: u64) {
        note("forget", request, of);
        self.fs.forget(node(of));
    }

    fn getattr(&self, request: &Request, of: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        note("getattr", request, of);
        self.fs.getattr(node(of), reply_attr(reply));
    }

    fn setattr(
        &self,
        request: &Request,
        of: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        note("setattr", request, of);
        let change = AttrChange {
            mode: mode.map(convert::permissions),
            uid,
            gid,
            size,
            atime: atime.map(convert::set_time),
            mtime: mtime.map(convert::set_time),
        };
        self.fs.setattr(node(of), caller(request), change, reply_attr(reply));
    }

    fn readlink(&self, request: &Request, of: INodeNo, reply: ReplyData) {
        note("readlink", request, of);
        self.fs.readlink(node(of), move |target| match target {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        note("mknod", request, parent);
        let Some(what) = convert::make(mode, rdev) else { return reply.error(fuser::Errno::EINVAL) };
        let mode = convert::permissions(mode & !umask);
        self.fs.make(node(parent), name.as_bytes(), caller(request), mode, what, reply_entry(reply));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        note("mkdir", request, parent);
        let mode = convert::permissions(mode & !umask);
        let name = name.as_bytes();
        self.fs.make(node(parent), name, caller(request), mode, Make::Directory, reply_entry(reply));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        note("symlink", request, parent);
        let what = Make::Symlink(target.as_os_str().as_bytes().to_vec());
        self.fs.make(node(parent), name.as_bytes(), caller(request), 0o777, what, reply_entry(reply));
    }

    fn link(&self, request: &Request, of: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        note("link", request, of);
        self.fs.link(node(of), node(parent), name.as_bytes(), reply_entry(reply));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        note("unlink", request, parent);
        self.fs.unlink(node(parent), name.as_bytes(), reply_empty(reply));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        note("rmdir", request, parent);
        self.fs.rmdir(node(parent), name.as_bytes(), reply_empty(reply));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        note("rename", request, parent);
        let Some(mode) = convert::rename_mode(flags) else { return reply.error(fuser::Errno::EINVAL) };
        let from = (node(parent), name.as_bytes());
        let to = (node(new_parent), new_name.as_bytes());
        self.fs.rename(from, to, mode, reply_empty(reply));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        note("create", request, parent);
        let mode = convert::permissions(mode & !umask);
        let write = convert::writes(flags);
        self.fs.create(node(parent), name.as_bytes(), caller(request), mode, write, move |created| {
            let created = match created {
                Ok(created) => created,
                Err(error) => return reply.error(errno(error)),
            };
            let (file, opened) = (&created.file, &created.opened);
            let ttl = file.entry_ttl.min(file.attr_ttl);
            let attr = convert::attr(file.node, &file.attr);
            let (handle, flags) = (FileHandle(opened.handle.0), open_flags(opened));
            match opened.backing {
                Some(id) => backing::created(reply, &ttl, &attr, handle, flags, id),
                None => reply.created(&ttl, &attr, Generation(0), handle, flags),
            }
        });
    }

    fn open(&self, request: &Request, of: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        note("open", request, of);
        self.fs.open(node(of), convert::writes(flags.0), move |opened| match opened {
            Ok(opened) => {
                let (handle, flags) = (FileHandle(opened.handle.0), open_flags(&opened));
                match opened.backing {
                    Some(id) => backing::opened(reply, handle, flags, id),
                    None => reply.opened(handle, flags),
                }
            }
            Err(error) => reply.error(errno(error)),
        });
    }

    fn read(
        &self,
        request: &Request,
        of: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        note("read", request, of);
        self.fs.read(node(of), offset, size as usize, move |bytes| match bytes {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn write(
        &self,
        request: &Request,
        of: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        note("write", request, of);
        self.fs.write(node(of), offset, data.to_vec(), reply_written(reply));
    }

    fn flush(&self, request: &Request, of: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        note("flush", request, of);
        reply.ok();
    }

    fn release(
        &self,
        request: &Request,
        of: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        note("release", request, of);
        self.fs.release(node(of), Handle(handle.0), reply_empty(reply));
    }

    fn fsync(&self, request: &Request, of: INodeNo, _handle: FileHandle, datasync: bool, reply: ReplyEmpty) {
        note("fsync", request, of);
        self.fs.fsync(node(of), datasync, reply_empty(reply));
    }

    fn opendir(&self, request: &Request, of: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        note("opendir", request, of);
        // The kernel then opens directories itself, once and for all, and caches their listings.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn readdir(
        &self,
        request: &Request,
        of: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        note("readdir", request, of);
        self.fs.list(node(of), offset, false, move |listing| match listing {
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
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        of: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        note("readdirplus", request, of);
        self.fs.list(node(of), offset, true, move |listing| match listing {
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
        });
    }

    fn fsyncdir(&self, request: &Request, of: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        note("fsyncdir", request, of);
        self.fs.sync_metadata(node(of), reply_empty(reply));
    }

    fn statfs(&self, request: &Request, of: INodeNo, reply: ReplyStatfs) {
        note("statfs", request, of);
        self.fs.statfs(node(of), move |statfs| match statfs {
            Ok(s) => {
                let block = u64::from(STATFS_BLOCK);
                let (blocks, free) = (s.bytes / block, s.bytes_free / block);
                let name_max = address_map::limits::NAME_MAX as u32;
                reply.statfs(blocks, free, free, s.inodes, s.inodes_free, STATFS_BLOCK, name_max, STATFS_BLOCK);
            }
            Err(error) => reply.error(errno(error)),
        });
    }

    fn setxattr(
        &self,
        request: &Request,
        of: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        note("setxattr", request, of);
        let Some(mode) = convert::xattr_mode(flags) else { return reply.error(fuser::Errno::EINVAL) };
        self.fs.setxattr(node(of), name.as_bytes(), value, mode, reply_empty(reply));
    }

    fn getxattr(&self, request: &Request, of: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        note("getxattr", request, of);
        self.fs.getxattr(node(of), name.as_bytes(), size, reply_xattr(reply));
    }

    fn listxattr(&self, request: &Request, of: INodeNo, size: u32, reply: ReplyXattr) {
        note("listxattr", request, of);
        self.fs.listxattr(node(of), size, reply_xattr(reply));
    }

    fn removexattr(&self, request: &Request, of: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        note("removexattr", request, of);
        self.fs.removexattr(node(of), name.as_bytes(), reply_empty(reply));
    }

    fn access(&self, request: &Request, of: INodeNo, _mask: fuser::AccessFlags, reply: ReplyEmpty) {
        note("access", request, of);
        // The kernel checks permissions itself.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        request: &Request,
        of: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        note("ioctl", request, of);
        reply.error(fuser::Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        request: &Request,
        of: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        note("fallocate", request, of);
        let at = Place { node: node(of), offset };
        self.fs.fallocate(at, length, mode.cast_unsigned(), reply_empty(reply));
    }

    fn lseek(
        &self,
        request: &Request,
        of: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        note("lseek", request, of);
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(fuser::Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(fuser::Errno::ENXIO) };
        self.fs.seek(Place { node: node(of), offset }, what, move |found| match found {
            Ok(found) => reply.offset(found.cast_signed()),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _handle_from: FileHandle,
        offset_from: u64,
        to: INodeNo,
        _handle_to: FileHandle,
        offset_to: u64,
        len: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        note("copy_file_range", request, from);
        if !flags.is_empty() {
            return reply.error(fuser::Errno::EINVAL);
        }
        let from = Place { node: node(from), offset: offset_from };
        let to = Place { node: node(to), offset: offset_to };
        self.fs.copy(from, to, len, reply_written(reply));
    }
}
