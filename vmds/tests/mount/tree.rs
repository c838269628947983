//! A controller small enough to be read at a glance: one tenant's tree in memory, bytes in a directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use address_map::attr::{Attr, AttrChange, Caller, FileKind, SetTime, Timestamp};
use address_map::error::Refusal;
use address_map::ids::{Ino, NodeId, Slot};
use address_map::name::Name;
use address_map::wire::{Answer, Call, Lease, ListEntry, Make, NodeAttr, RenameMode, Statfs, XattrMode};

struct Node {
    attr: Attr,
    children: BTreeMap<Name, u64>,
    target: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: Option<File>,
    backing: Option<u32>,
}

/// Registers a file with the kernel for passthrough.
pub(crate) type Register = Box<dyn Fn(&File) -> Option<u32> + Send>;

/// The tree.
pub(crate) struct Tree {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    clock: i64,
    pool: PathBuf,
    register: Option<Register>,
    /// Bytes that may be charged.
    pub(crate) quota: u64,
    /// Calls answered, by their kind.
    pub(crate) calls: BTreeMap<String, usize>,
}

type Reply = Result<(Answer, Option<OwnedFd>), Refusal>;

fn plain(answer: Answer) -> Reply {
    Ok((answer, None))
}

impl Tree {
    pub(crate) fn new(pool: PathBuf, register: Option<Register>) -> Self {
        let mut tree = Self {
            nodes: BTreeMap::new(),
            next: 1,
            clock: 1_700_000_000,
            pool,
            register,
            quota: u64::MAX,
            calls: BTreeMap::new(),
        };
        tree.insert(FileKind::Directory, 0o755, Caller { uid: 0, gid: 0 }, 0, Vec::new());
        tree
    }

    fn now(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp::new(self.clock, 0)
    }

    fn insert(&mut self, kind: FileKind, mode: u32, caller: Caller, rdev: u32, target: Vec<u8>) -> u64 {
        let (ino, time) = (self.next, self.now());
        self.next += 1;
        let attr = Attr {
            kind,
            mode,
            uid: caller.uid,
            gid: caller.gid,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            size: target.len() as u64,
            blocks: 0,
            rdev,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            has_xattrs: false,
            volatile: false,
        };
        let bytes = (kind == FileKind::File).then(|| {
            let path = self.pool.join(ino.to_string());
            File::options().read(true).write(true).create_new(true).open(path).unwrap()
        });
        let (children, xattrs) = Default::default();
        self.nodes.insert(ino, Node { attr, children, target, xattrs, bytes, backing: None });
        ino
    }

    fn node(&mut self, node: NodeId) -> Result<&mut Node, Refusal> {
        self.nodes.get_mut(&node.ino().0).ok_or(Refusal::NotFound)
    }

    fn attr(&self, ino: u64) -> Attr {
        let node = &self.nodes[&ino];
        match &node.bytes {
            Some(file) if node.attr.volatile => with_size_of(node.attr, file),
            _ => node.attr,
        }
    }

    fn shown(&self, ino: u64) -> NodeAttr {
        NodeAttr { node: NodeId::new(Slot::OWN, Ino(ino)), attr: self.attr(ino) }
    }

    fn child(&mut self, parent: NodeId, name: &Name) -> Result<u64, Refusal> {
        self.node(parent)?.children.get(name).copied().ok_or(Refusal::NotFound)
    }

    fn enter(&mut self, parent: NodeId, name: &Name, ino: u64) {
        let time = self.now();
        let dir = self.nodes[&ino].attr.kind == FileKind::Directory;
        let parent = self.node(parent).unwrap();
        parent.children.insert(name.clone(), ino);
        parent.attr.nlink += u32::from(dir);
        (parent.attr.mtime, parent.attr.ctime) = (time, time);
    }

    fn leave(&mut self, parent: NodeId, name: &Name) -> u64 {
        let time = self.now();
        let ino = self.node(parent).unwrap().children[name];
        let dir = self.nodes[&ino].attr.kind == FileKind::Directory;
        let parent = self.node(parent).unwrap();
        parent.children.remove(name);
        parent.attr.nlink -= u32::from(dir);
        (parent.attr.mtime, parent.attr.ctime) = (time, time);
        ino
    }

    fn unlinked(&mut self, ino: u64) -> NodeAttr {
        let time = self.now();
        let node = self.nodes.get_mut(&ino).unwrap();
        node.attr.nlink = if node.attr.kind == FileKind::Directory { 0 } else { node.attr.nlink - 1 };
        node.attr.ctime = time;
        self.shown(ino)
    }

    fn lease(&mut self, ino: u64, write: bool) -> (Lease, OwnedFd) {
        let node = self.nodes.get_mut(&ino).unwrap();
        let file = node.bytes.as_ref().unwrap();
        if node.backing.is_none()
            && let Some(register) = &self.register
        {
            node.backing = register(file);
        }
        node.attr.volatile |= write;
        let lease =
            Lease { write, backing: node.backing, floating: false, remote: false, alone: true, near: None };
        (lease, file.as_fd().try_clone_to_owned().unwrap())
    }

    /// A change by somebody else, who does not go through this mount.
    pub(crate) fn make_behind_the_back(&mut self, name: &Name, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        let ino = self.insert(FileKind::File, 0o644, Caller { uid: 0, gid: 0 }, 0, Vec::new());
        let node = self.nodes.get_mut(&ino).unwrap();
        let file = node.bytes.as_ref().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        node.attr = with_size_of(node.attr, file);
        self.enter(NodeId::ROOT, name, ino);
    }

    /// Answers a call.
    pub(crate) fn answer(&mut self, call: Call) -> Reply {
        let kind: String = format!("{call:?}").chars().take_while(|c| c.is_alphabetic()).collect();
        *self.calls.entry(kind).or_default() += 1;
        match call {
            Call::Lookup { parent, name } => {
                let ino = self.child(parent, &name)?;
                plain(Answer::Found(self.shown(ino)))
            }
            Call::Getattr { node } => {
                self.node(node)?;
                plain(Answer::Attr(self.attr(node.ino().0)))
            }
            Call::Setattr { node, change, .. } => self.setattr(node, change),
            Call::Readlink { node } => plain(Answer::Bytes(self.node(node)?.target.clone())),
            Call::Make { parent, name, caller, mode, what } => {
                let (kind, rdev, target) = match what {
                    Make::File => (FileKind::File, 0, Vec::new()),
                    Make::Directory => (FileKind::Directory, 0, Vec::new()),
                    Make::Symlink(target) => (FileKind::Symlink, 0, target),
                    Make::Fifo => (FileKind::Fifo, 0, Vec::new()),
                    Make::Socket => (FileKind::Socket, 0, Vec::new()),
                    Make::CharDevice(rdev) => (FileKind::CharDevice, rdev, Vec::new()),
                    Make::BlockDevice(rdev) => (FileKind::BlockDevice, rdev, Vec::new()),
                };
                self.must_be_free(parent, &name)?;
                let ino = self.insert(kind, mode.masked(), caller, rdev, target);
                self.enter(parent, &name, ino);
                plain(Answer::Made { target: self.shown(ino), parent: self.attr(parent.ino().0) })
            }
            Call::Create { parent, name, caller, mode } => {
                self.must_be_free(parent, &name)?;
                let ino = self.insert(FileKind::File, mode.masked(), caller, 0, Vec::new());
                self.enter(parent, &name, ino);
                let (lease, fd) = self.lease(ino, true);
                let (file, parent) = (self.shown(ino), self.attr(parent.ino().0));
                Ok((Answer::Created { file, parent, lease }, Some(fd)))
            }
            Call::Link { node, parent, name } => {
                self.must_be_free(parent, &name)?;
                self.node(node)?.attr.nlink += 1;
                self.enter(parent, &name, node.ino().0);
                plain(Answer::Made { target: self.shown(node.ino().0), parent: self.attr(parent.ino().0) })
            }
            Call::Unlink { parent, name } | Call::Rmdir { parent, name } => {
                let ino = self.child(parent, &name)?;
                if !self.nodes[&ino].children.is_empty() {
                    return Err(Refusal::NotEmpty);
                }
                self.leave(parent, &name);
                let target = self.unlinked(ino);
                plain(Answer::Removed { target, parent: self.attr(parent.ino().0) })
            }
            Call::Rename { parent, name, new_parent, new_name, mode } => {
                self.rename((parent, name), (new_parent, new_name), mode)
            }
            Call::List { node, after } => {
                let children = self.node(node)?.children.clone();
                let entries = children.into_iter().map(|(name, ino)| (ino + 10, name, ino));
                let mut entries: Vec<_> = entries.filter(|(cookie, ..)| *cookie > after).collect();
                entries.sort();
                let end = entries.len() <= 100;
                entries.truncate(100);
                let entry = |(cookie, name, ino)| ListEntry { cookie, name, node: self.shown(ino) };
                plain(Answer::Page { entries: entries.into_iter().map(entry).collect(), end })
            }
            Call::Getxattr { node, name } => {
                let value = self.node(node)?.xattrs.get(&name).cloned();
                plain(Answer::Bytes(value.ok_or(Refusal::NoAttribute)?))
            }
            Call::Listxattr { node } => {
                let names = self.node(node)?.xattrs.keys().flat_map(|name| [name, &b"\0"[..]].concat());
                plain(Answer::Bytes(names.collect()))
            }
            Call::Setxattr { node, name, value, mode, .. } => {
                let node_ = self.node(node)?;
                match (mode, node_.xattrs.contains_key(&name)) {
                    (XattrMode::Create, true) => return Err(Refusal::Exists),
                    (XattrMode::Replace, false) => return Err(Refusal::NoAttribute),
                    _ => {}
                }
                node_.xattrs.insert(name, value);
                node_.attr.has_xattrs = true;
                plain(Answer::Attr(self.attr(node.ino().0)))
            }
            Call::Removexattr { node, name } => {
                let node_ = self.node(node)?;
                node_.xattrs.remove(&name).ok_or(Refusal::NoAttribute)?;
                node_.attr.has_xattrs = !node_.xattrs.is_empty();
                plain(Answer::Attr(self.attr(node.ino().0)))
            }
            Call::Statfs { .. } => plain(Answer::Statfs(Statfs {
                bytes: 1 << 30,
                bytes_free: 1 << 29,
                inodes: 1000,
                inodes_free: 900,
            })),
            Call::Flush { .. } | Call::Wrote { .. } | Call::Fill { .. } => Ok((Answer::Done, None)),
            Call::Connect { .. } | Call::Sums { .. } => Err(Refusal::NotSupported),
            Call::Lease { node, write, .. } => {
                self.node(node)?;
                let (lease, fd) = self.lease(node.ino().0, write);
                Ok((Answer::Leased { attr: self.attr(node.ino().0), lease }, Some(fd)))
            }
            Call::CloseWrite { node } => {
                let settled = self.attr(node.ino().0);
                self.node(node)?.attr = Attr { volatile: false, ..settled };
                plain(Answer::Attr(self.attr(node.ino().0)))
            }
            Call::Grow { size, .. } if size > self.quota => Err(Refusal::Quota),
            Call::Grow { .. } | Call::Sync { .. } => plain(Answer::Done),
        }
    }

    fn must_be_free(&mut self, parent: NodeId, name: &Name) -> Result<(), Refusal> {
        if self.node(parent)?.children.contains_key(name) { Err(Refusal::Exists) } else { Ok(()) }
    }

    fn setattr(&mut self, node: NodeId, change: AttrChange) -> Reply {
        let now = self.now();
        let entry = self.node(node)?;
        if let (Some(size), Some(file)) = (change.size, &entry.bytes) {
            file.set_len(size).unwrap();
            entry.attr = with_size_of(entry.attr, file);
        }
        let time = |set: Option<SetTime>, old| match set {
            None => old,
            Some(SetTime::Now) => now,
            Some(SetTime::To(time)) => time,
        };
        let old = entry.attr;
        entry.attr = Attr {
            mode: change.mode.unwrap_or(old.mode),
            uid: change.uid.unwrap_or(old.uid),
            gid: change.gid.unwrap_or(old.gid),
            atime: time(change.atime, old.atime),
            mtime: time(change.mtime, old.mtime),
            ctime: now,
            ..old
        };
        plain(Answer::Attr(self.attr(node.ino().0)))
    }

    fn rename(&mut self, from: (NodeId, Name), to: (NodeId, Name), mode: RenameMode) -> Reply {
        let moved = self.child(from.0, &from.1)?;
        let other = self.child(to.0, &to.1).ok();
        match (mode, other) {
            (RenameMode::NoReplace, Some(_)) => return Err(Refusal::Exists),
            (RenameMode::Exchange, None) => return Err(Refusal::NotFound),
            _ => {}
        }
        self.leave(from.0, &from.1);
        let other = other.map(|other| {
            self.leave(to.0, &to.1);
            if mode == RenameMode::Exchange {
                self.enter(from.0, &from.1, other);
                self.shown(other)
            } else {
                self.unlinked(other)
            }
        });
        self.enter(to.0, &to.1, moved);
        let (parent, new_parent) = (self.attr(from.0.ino().0), self.attr(to.0.ino().0));
        plain(Answer::Renamed { moved: self.shown(moved), other, parent, new_parent })
    }
}

fn with_size_of(attr: Attr, file: &File) -> Attr {
    let stat = file.metadata().unwrap();
    let mtime = Timestamp::new(stat.mtime(), stat.mtime_nsec() as u32);
    Attr { size: stat.size(), blocks: stat.blocks(), mtime, ..attr }
}
