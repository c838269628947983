//! Making the calls of a history on one of the two sides.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::look::{Look, Memory};
use super::step::{Names, On, Op, SLOTS, Special, Step, Whence};
use super::tree::Tree;
use super::user::Acting;
use super::{Histories, attributes, bytes, holes, tree};

/// What a call answered.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Done,
    Number(u64),
    Bytes(Vec<u8>),
    Names(Vec<String>),
    Look(Look),
    Failed(Errno),
    /// Nothing is open there.
    Closed,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Seen::Done => write!(f, "done"),
            Seen::Number(number) => write!(f, "{number}"),
            Seen::Bytes(bytes) => write!(f, "{}", bytes::summary(bytes)),
            Seen::Names(names) => write!(f, "{names:?}"),
            Seen::Look(look) => write!(f, "{look:?}"),
            Seen::Failed(errno) => write!(f, "{errno:?}"),
            Seen::Closed => write!(f, "closed"),
        }
    }
}

impl From<Result<Seen, Errno>> for Seen {
    fn from(result: Result<Seen, Errno>) -> Self {
        result.unwrap_or_else(Seen::Failed)
    }
}

/// An open file, and the way it was opened.
struct Opened {
    way: usize,
    file: OwnedFd,
}

/// One of the two: the ways to its directory, what is open, and what was seen.
pub(super) struct Side {
    roots: Vec<PathBuf>,
    open: [Option<Opened>; SLOTS as usize],
    /// What was seen on each way: two mounts number inodes differently.
    memories: Vec<Memory>,
    /// As [`Histories::holes`].
    holes: bool,
}

impl Side {
    /// The ways to the directory.
    pub(super) fn new(roots: Vec<PathBuf>, kind: Histories) -> Self {
        let memories = roots.iter().map(|_| Memory::new(kind.patient)).collect();
        Self { roots, open: Default::default(), memories, holes: kind.holes }
    }

    /// Makes the call of step `number`, and looks afterwards if that is wanted.
    pub(super) fn take(&mut self, number: usize, step: &Step) -> Vec<Seen> {
        let way = usize::from(step.via) % self.roots.len();
        self.close_removed();
        let acting = Acting::begin(step.user);
        let answer = self.act(way, number as u64, &step.op).into();
        drop(acting);
        self.close_removed();
        let mut seen = vec![answer];
        if step.look {
            seen.extend(step.op.names().iter().map(|on| self.look(way, on).into()));
        }
        seen
    }

    /// With several ways, closes what is no regular file and was removed: on another way it is unknown from then on.
    fn close_removed(&mut self) {
        if self.roots.len() == 1 {
            return;
        }
        for open in &mut self.open {
            let state =
                open.as_ref().map(|open| rustix::fs::fstat(&open.file).map(|_| is_removed(&open.file)));
            if matches!(state, Some(Ok(true) | Err(Errno::NOENT))) {
                *open = None;
            }
        }
    }

    /// Looks at all open files.
    pub(super) fn look_at_open(&mut self) -> Vec<Seen> {
        (0..SLOTS).map(|slot| self.look(0, &On::Slot(slot)).into()).collect()
    }

    /// Closes all files.
    pub(super) fn close(&mut self) {
        self.open = Default::default();
    }

    /// Reads the whole tree, once on each way.
    pub(super) fn trees(&mut self) -> Result<Vec<Tree>, String> {
        self.roots.iter().zip(&mut self.memories).map(|(root, memory)| tree::read(root, memory)).collect()
    }

    fn look(&mut self, way: usize, on: &On) -> Result<Seen, Errno> {
        let path = |path: &Names| self.roots[way].join(path.path());
        let look = match on {
            On::Path(names) => self.memories[way].look(CWD, &path(names), AtFlags::empty()),
            On::Link(names) => self.memories[way].look(CWD, &path(names), AtFlags::SYMLINK_NOFOLLOW),
            On::Slot(slot) => match &self.open[usize::from(*slot)] {
                Some(Opened { way, file }) => {
                    self.memories[*way].look(file, Path::new(""), AtFlags::EMPTY_PATH)
                }
                None => return Ok(Seen::Closed),
            },
        };
        look.map(Seen::Look)
    }

    fn act(&mut self, way: usize, number: u64, op: &Op) -> Result<Seen, Errno> {
        let root = self.roots[way].clone();
        match op {
            Op::Open { slot, path, flags, mode } => {
                let open = &mut self.open[usize::from(*slot)];
                // Closed first, whatever comes of it: both sides shall do the same in the same order.
                *open = None;
                let flags = *flags | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
                let file = rustix::fs::open(root.join(path.path()), flags, Mode::from_raw_mode(mode.0))?;
                *open = Some(Opened { way, file });
                Ok(Seen::Done)
            }
            Op::Close { slot } => {
                self.open[usize::from(*slot)] = None;
                Ok(Seen::Done)
            }
            Op::Stat { on } => self.look(way, on),
            Op::Mkdir { .. }
            | Op::Mknod { .. }
            | Op::Symlink { .. }
            | Op::Readlink { .. }
            | Op::Link { .. }
            | Op::Rename { .. }
            | Op::Unlink { .. }
            | Op::Rmdir { .. } => change_names(&root, op),
            Op::Truncate { on, .. }
            | Op::Chmod { on, .. }
            | Op::Chown { on, .. }
            | Op::Times { on, .. }
            | Op::SetXattr { on, .. }
            | Op::GetXattr { on, .. }
            | Op::RemoveXattr { on, .. }
            | Op::ListXattr { on }
            | Op::List { on } => match on {
                On::Path(path) => attributes::act_at(&root.join(path.path()), true, number, op),
                On::Link(path) => attributes::act_at(&root.join(path.path()), false, number, op),
                On::Slot(slot) => match &self.open[usize::from(*slot)] {
                    // Of what has no name any more but was not opened as a file, the attributes are kept and no more.
                    Some(Opened { file, .. }) if is_removed(file) => Ok(Seen::Closed),
                    Some(Opened { file, .. }) => attributes::act_on(file, number, op),
                    None => Ok(Seen::Closed),
                },
            },
            Op::Seek { slot, whence: whence @ (Whence::Data | Whence::Hole), by } if !self.holes => {
                match &self.open[usize::from(*slot)] {
                    Some(Opened { file, .. }) => holes::look(file, *whence, by.unsigned_abs()),
                    None => Ok(Seen::Closed),
                }
            }
            _ => bytes::act(|slot| self.open[usize::from(slot)].as_ref().map(|open| &open.file), number, op),
        }
    }
}

/// Calls that change or read names.
fn change_names(root: &Path, op: &Op) -> Result<Seen, Errno> {
    let at = |path: &Names| root.join(path.path());
    match op {
        Op::Mkdir { path, mode } => rustix::fs::mkdir(at(path), Mode::from_raw_mode(mode.0))?,
        Op::Mknod { path, what, mode } => {
            let kind = match what {
                Special::File => FileType::RegularFile,
                Special::Pipe => FileType::Fifo,
                Special::Socket => FileType::Socket,
                Special::Device => FileType::CharacterDevice,
            };
            rustix::fs::mknodat(CWD, at(path), kind, Mode::from_raw_mode(mode.0), 0)?;
        }
        Op::Symlink { target, path } => rustix::fs::symlink(target.path(), at(path))?,
        Op::Readlink { path } => {
            return Ok(Seen::Bytes(rustix::fs::readlink(at(path), Vec::new())?.into_bytes()));
        }
        Op::Link { from, to, follow } => {
            let flags = if *follow { AtFlags::SYMLINK_FOLLOW } else { AtFlags::empty() };
            rustix::fs::linkat(CWD, at(from), CWD, at(to), flags)?;
        }
        Op::Rename { from, to, flags } => rustix::fs::renameat_with(CWD, at(from), CWD, at(to), *flags)?,
        Op::Unlink { path } => rustix::fs::unlink(at(path))?,
        Op::Rmdir { path } => rustix::fs::rmdir(at(path))?,
        other => unreachable!("{other:?} is no change of names"),
    }
    Ok(Seen::Done)
}

/// Whether this is no regular file, and has no name any more.
fn is_removed(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| {
        stat.st_nlink == 0 && FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
    })
}
