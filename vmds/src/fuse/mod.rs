//! The only place that knows `fuser`: requests are decoded, handed to [`crate::fs`], and answered.

mod backing;
mod convert;
mod kernel;
mod reply;
mod session;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use address_map::attr::{AttrChange, NewMode};
use address_map::wire::Make;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use tracing::trace;

use crate::fs::{Fs, Handle, Place, Seek};
use crate::link::KernelRequest;
use convert::{caller, errno, node};
use session::Agreed;
pub(crate) use session::serve;

/// The mount, as `fuser` calls it.
struct Mount {
    fs: Arc<Fs>,
    agreed: Agreed,
}

fn note(op: &'static str, request: &Request, on: INodeNo) {
    trace!(op, ino = on.0, request = request.unique().0, "request");
}

fn number(request: &Request) -> KernelRequest {
    KernelRequest(request.unique().0)
}

impl Filesystem for Mount {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.agreed = session::negotiate(config)?;
        if self.agreed.passthrough {
            self.fs.allow_passthrough();
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        note("lookup", request, parent);
        self.fs.lookup(node(parent), name.as_bytes(), reply::looked(reply));
    }

    fn forget(&self, request: &Request, of: INodeNo, _nlookup: u64) {
        note("forget", request, of);
        self.fs.forget(node(of));
    }

    fn getattr(&self, request: &Request, of: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        note("getattr", request, of);
        self.fs.getattr(node(of), reply::attr(reply));
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
        self.fs.setattr(number(request), node(of), caller(request), change, reply::attr(reply));
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
        let mode = convert::new_mode(mode, umask);
        self.fs.make(
            number(request),
            node(parent),
            name.as_bytes(),
            caller(request),
            mode,
            what,
            reply::entry(reply),
        );
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        note("mkdir", request, parent);
        let mode = convert::new_mode(mode, umask);
        let name = name.as_bytes();
        self.fs.make(
            number(request),
            node(parent),
            name,
            caller(request),
            mode,
            Make::Directory,
            reply::entry(reply),
        );
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        note("symlink", request, parent);
        let what = Make::Symlink(target.as_os_str().as_bytes().to_vec());
        self.fs.make(
            number(request),
            node(parent),
            name.as_bytes(),
            caller(request),
            NewMode::exactly(0o777),
            what,
            reply::entry(reply),
        );
    }

    fn link(&self, request: &Request, of: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        note("link", request, of);
        self.fs.link(number(request), node(of), node(parent), name.as_bytes(), reply::entry(reply));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        note("unlink", request, parent);
        self.fs.unlink(number(request), node(parent), name.as_bytes(), reply::empty(reply));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        note("rmdir", request, parent);
        self.fs.rmdir(number(request), node(parent), name.as_bytes(), reply::empty(reply));
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
        self.fs.rename(number(request), from, to, mode, reply::empty(reply));
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
        let mode = convert::new_mode(mode, umask);
        let (name, write) = (name.as_bytes(), convert::writes(flags));
        self.fs.create(
            number(request),
            node(parent),
            name,
            caller(request),
            mode,
            write,
            reply::create(reply, flags),
        );
    }

    fn open(&self, request: &Request, of: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        note("open", request, of);
        self.fs.open(node(of), convert::writes(flags.0), reply::open(reply, flags.0));
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
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        note("write", request, of);
        let strip = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID).then(|| number(request));
        let place = convert::write_to(request.unique().0, flags.0, write_flags, offset);
        self.fs.write(node(of), place, data.to_vec(), strip, reply::written(reply));
    }

    fn flush(
        &self,
        request: &Request,
        of: INodeNo,
        handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        note("flush", request, of);
        self.fs.flush(node(of), Handle(handle.0), reply::empty(reply));
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
        self.fs.release(node(of), Handle(handle.0), reply::empty(reply));
    }

    fn fsync(&self, request: &Request, of: INodeNo, _handle: FileHandle, datasync: bool, reply: ReplyEmpty) {
        note("fsync", request, of);
        self.fs.fsync(node(of), datasync, reply::empty(reply));
    }

    fn opendir(&self, request: &Request, of: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        note("opendir", request, of);
        if self.agreed.no_opendir {
            // The kernel then opens directories itself, once and for all, and caches their listings.
            return reply.error(fuser::Errno::ENOSYS);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn readdir(
        &self,
        request: &Request,
        of: INodeNo,
        _handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        note("readdir", request, of);
        self.fs.list(node(of), offset, false, reply::names(reply));
    }

    fn readdirplus(
        &self,
        request: &Request,
        of: INodeNo,
        _handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        note("readdirplus", request, of);
        self.fs.list(node(of), offset, true, reply::names_and_attrs(reply));
    }

    fn fsyncdir(
        &self,
        request: &Request,
        of: INodeNo,
        _handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        note("fsyncdir", request, of);
        self.fs.fsyncdir(node(of), data_only, reply::empty(reply));
    }

    fn statfs(&self, request: &Request, of: INodeNo, reply: ReplyStatfs) {
        note("statfs", request, of);
        self.fs.statfs(node(of), reply::statfs(reply));
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
        let attribute = (node(of), name.as_bytes());
        self.fs.setxattr(number(request), attribute, caller(request), value, mode, reply::empty(reply));
    }

    fn getxattr(&self, request: &Request, of: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        note("getxattr", request, of);
        self.fs.getxattr(node(of), name.as_bytes(), size, reply::xattr(reply));
    }

    fn listxattr(&self, request: &Request, of: INodeNo, size: u32, reply: ReplyXattr) {
        note("listxattr", request, of);
        self.fs.listxattr(node(of), caller(request), size, reply::xattr(reply));
    }

    fn removexattr(&self, request: &Request, of: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        note("removexattr", request, of);
        self.fs.removexattr(number(request), node(of), name.as_bytes(), reply::empty(reply));
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
        self.fs.fallocate(at, length, mode.cast_unsigned(), reply::empty(reply));
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
        self.fs.copy(from, to, len, reply::written(reply));
    }
}
