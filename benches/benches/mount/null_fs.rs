//! A FUSE file system that keeps names in memory and does nothing else: what FUSE itself costs.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, MountOption, OpenFlags, ReplyAttr, ReplyCreate, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, Request, SessionACL,
};
use parking_lot::RwLock;

const TTL: Duration = Duration::from_secs(3600);

#[derive(Default)]
struct State {
    names: HashMap<OsString, u64>,
    in_order: BTreeMap<u64, OsString>,
    last: u64,
}

/// One directory of empty files.
pub(crate) struct NullFs(RwLock<State>);

impl NullFs {
    /// Mounts it with two threads, as a VMDS has.
    pub(crate) fn mount(dir: &Path) -> BackgroundSession {
        let fs = Self(RwLock::new(State { last: 1, ..State::default() }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("null".into()), MountOption::DefaultPermissions];
        config.acl = SessionACL::All;
        config.n_threads = Some(2);
        fuser::spawn_mount(fs, dir, &config).expect("mount the null file system")
    }
}

fn attr(ino: u64) -> FileAttr {
    let directory = ino == 1;
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if directory { FileType::Directory } else { FileType::RegularFile },
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for NullFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
        config.add_capabilities(wanted).map_err(|_| std::io::ErrorKind::Unsupported.into())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.0.read().names.get(name) {
            Some(ino) => reply.entry(&TTL, &attr(*ino), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attr(ino.0));
    }

    fn create(&self, _: &Request, _: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let mut state = self.0.write();
        state.last += 1;
        let ino = state.last;
        state.names.insert(name.to_owned(), ino);
        state.in_order.insert(ino, name.to_owned());
        drop(state);
        reply.created(&TTL, &attr(ino), Generation(0), FileHandle(0), FopenFlags::FOPEN_NOFLUSH);
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.0.write();
        if let Some(ino) = state.names.remove(name) {
            state.in_order.remove(&ino);
        }
        drop(state);
        reply.ok();
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_NOFLUSH);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        for (ino, name) in self.0.read().in_order.range(offset + 1..) {
            if reply.add(INodeNo(*ino), *ino, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        for (ino, name) in self.0.read().in_order.range(offset + 1..) {
            if reply.add(INodeNo(*ino), *ino, name, &TTL, &attr(*ino), Generation(0)) {
                break;
            }
        }
        reply.ok();
    }
}
