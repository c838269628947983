//! The file system: every request is carried out in the directory behind it, once the gate lets it pass.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, SeekFrom, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::Gate;

/// Nothing is kept by the kernel: it has to ask each time.
const AT_ONCE: Duration = Duration::ZERO;

#[derive(Default)]
struct Table {
    paths: HashMap<u64, PathBuf>,
    open: HashMap<u64, Arc<File>>,
    last_handle: u64,
}

/// See the module.
pub(super) struct Far {
    behind: PathBuf,
    gate: Arc<Gate>,
    table: Mutex<Table>,
}

impl Far {
    pub(super) fn new(behind: PathBuf, gate: Arc<Gate>) -> Self {
        Self { behind, gate, table: Mutex::default() }
    }

    fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        if ino == INodeNo::ROOT {
            return Ok(self.behind.clone());
        }
        self.table.lock().paths.get(&ino.0).cloned().ok_or(io::ErrorKind::NotFound.into())
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        self.table.lock().open.get(&handle.0).cloned().ok_or(io::ErrorKind::NotFound.into())
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    fn found(&self, path: PathBuf) -> io::Result<FileAttr> {
        let attr = attr(&fs::symlink_metadata(&path)?);
        self.table.lock().paths.insert(attr.ino.0, path);
        Ok(attr)
    }

    fn opened(&self, file: File) -> FileHandle {
        let mut table = self.table.lock();
        table.last_handle += 1;
        let handle = table.last_handle;
        table.open.insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    fn attr_of(&self, ino: INodeNo, handle: Option<FileHandle>) -> io::Result<FileAttr> {
        let of_root = |attr: FileAttr| FileAttr { ino, ..attr };
        match handle.map(|handle| self.file(handle)) {
            Some(Ok(file)) => Ok(attr(&file.metadata()?)),
            _ => Ok(of_root(attr(&fs::symlink_metadata(self.path(ino)?)?))),
        }
    }
}

fn attr(metadata: &Metadata) -> FileAttr {
    let time = |sec: i64, nsec: i64| {
        UNIX_EPOCH + Duration::new(sec.try_into().unwrap_or(0), nsec.try_into().unwrap_or(0))
    };
    FileAttr {
        ino: INodeNo(metadata.ino()),
        size: metadata.size(),
        blocks: metadata.blocks(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: if metadata.is_dir() { FileType::Directory } else { FileType::RegularFile },
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn empty(reply: ReplyEmpty, result: io::Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn errno(error: io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::NotFound => Errno::ENOENT,
        _ => error.into(),
    }
}

fn entry(reply: ReplyEntry, found: io::Result<FileAttr>) {
    match found {
        Ok(attr) => reply.entry(&AT_ONCE, &attr, Generation(0)),
        Err(error) => reply.error(errno(error)),
    }
}

fn open_options(flags: i32) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(flags & 0o3 != 0);
    options
}

fn time(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            Timespec { tv_sec: since.as_secs().cast_signed(), tv_nsec: i64::from(since.subsec_nanos()) }
        }
    }
}

impl Filesystem for Far {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.gate.pass(false);
        entry(reply, self.child(parent, name).and_then(|path| self.found(path)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        self.gate.pass(false);
        match self.attr_of(ino, handle) {
            Ok(attr) => reply.attr(&AT_ONCE, &attr),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.gate.pass(false);
        let changed = self.path(ino).and_then(|path| {
            let file = OpenOptions::new().write(true).open(path)?;
            if let Some(size) = size {
                file.set_len(size)?;
            }
            let times = Timestamps { last_access: time(atime), last_modification: time(mtime) };
            Ok(rustix::fs::futimens(&file, &times)?)
        });
        match changed.and_then(|()| self.attr_of(ino, handle)) {
            Ok(attr) => reply.attr(&AT_ONCE, &attr),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        self.gate.pass(false);
        let made = self.child(parent, name).and_then(|path| {
            fs::DirBuilder::new().mode(mode).create(&path)?;
            self.found(path)
        });
        entry(reply, made);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.gate.pass(false);
        empty(reply, self.child(parent, name).and_then(fs::remove_file));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.gate.pass(false);
        empty(reply, self.child(parent, name).and_then(fs::remove_dir));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.gate.pass(false);
        let made = self.child(parent, name).and_then(|path| {
            let file = open_options(flags | 0o2).create(true).truncate(false).mode(mode).open(&path)?;
            Ok((self.found(path)?, self.opened(file)))
        });
        match made {
            Ok((attr, handle)) => {
                reply.created(&AT_ONCE, &attr, Generation(0), handle, FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.gate.pass(false);
        match self.path(ino).and_then(|path| open_options(flags.0).open(path)) {
            // The kernel keeps no pages: every byte is asked for.
            Ok(file) => reply.opened(self.opened(file), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.gate.pass(true);
        let mut bytes = vec![0; size as usize];
        match self.file(handle).and_then(|file| file.read_at(&mut bytes, offset)) {
            Ok(read) => reply.data(&bytes[..read]),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.gate.pass(true);
        match self.file(handle).and_then(|file| file.write_all_at(data, offset)) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.gate.pass(true);
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.table.lock().open.remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.gate.pass(true);
        empty(reply, self.file(handle).and_then(|file| file.sync_all()));
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.gate.pass(true);
        reply.ok();
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.gate.pass(false);
        let list = self.path(ino).and_then(|path| fs::read_dir(path)?.collect::<io::Result<Vec<_>>>());
        match list {
            Ok(mut list) => {
                list.sort_by_key(fs::DirEntry::file_name);
                for (at, entry) in (1..).zip(&list).skip(offset as usize) {
                    let kind = match entry.file_type() {
                        Ok(kind) if kind.is_dir() => FileType::Directory,
                        _ => FileType::RegularFile,
                    };
                    let ino = INodeNo(std::os::unix::fs::DirEntryExt::ino(entry));
                    if reply.add(ino, at, kind, entry.file_name()) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.gate.pass(false);
        reply.statfs(1 << 30, 1 << 30, 1 << 30, 1 << 20, 1 << 20, 4096, 255, 4096);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.gate.pass(true);
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let done = self.file(handle).and_then(|file| Ok(rustix::fs::fallocate(&file, mode, offset, length)?));
        empty(reply, done);
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.gate.pass(true);
        const SEEK_DATA: i32 = 3;
        let offset = offset.cast_unsigned();
        let to = if whence == SEEK_DATA { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) };
        match self.file(handle).and_then(|file| Ok(rustix::fs::seek(&*file, to)?)) {
            Ok(found) => reply.offset(found.cast_signed()),
            Err(error) => reply.error(errno(error)),
        }
    }
}
