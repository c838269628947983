//! What a history consists of.

use std::fmt;
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, OFlags, RenameFlags, XattrFlags};

use super::user::User;

/// Files that may be open at the same time.
pub(super) const SLOTS: u8 = 4;

/// One call.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Who calls.
    pub(super) user: User,
    /// Which of the ways to the tree it takes.
    pub(super) via: u8,
    /// The call.
    pub(super) op: Op,
    /// Whether what it named is looked at afterwards.
    pub(super) look: bool,
}

/// A path: names of one letter.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Names(pub(super) Vec<u8>);

impl Names {
    pub(super) fn path(&self) -> PathBuf {
        self.0.iter().map(|&name| char::from(b'a' + name).to_string()).collect()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path().display())
    }
}

/// Permission bits.
#[derive(Clone, Copy)]
pub(super) struct Bits(pub(super) u32);

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#o}", self.0)
    }
}

/// What a call is about.
#[derive(Clone, Debug)]
pub(super) enum On {
    /// What a path leads to.
    Path(Names),
    /// What has the path as its name, also if that is a symbolic link.
    Link(Names),
    /// An open file.
    Slot(u8),
}

/// A time to set.
#[derive(Clone, Copy, Debug)]
pub(super) enum Time {
    Now,
    Omit,
    /// Seconds and nanoseconds, before 2020.
    At(i64, u32),
}

/// Where to seek.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whence {
    Start,
    Current,
    End,
    Data,
    Hole,
}

/// What `mknod` makes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Special {
    File,
    Pipe,
    Socket,
    /// Character device 0:0, which nobody has.
    Device,
}

/// A call with its arguments. Offsets and lengths are in bytes.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Open { slot: u8, path: Names, flags: OFlags, mode: Bits },
    Close { slot: u8 },
    Write { slot: u8, len: usize },
    Pwrite { slot: u8, at: u64, len: usize },
    Read { slot: u8, len: usize },
    Pread { slot: u8, at: u64, len: usize },
    Seek { slot: u8, whence: Whence, by: i64 },
    Truncate { on: On, size: u64 },
    Allocate { slot: u8, mode: FallocateFlags, at: u64, len: u64 },
    Copy { from: u8, from_at: u64, to: u8, to_at: u64, len: usize },
    WriteMapped { slot: u8, at: u64, len: usize },
    ReadMapped { slot: u8, at: u64, len: usize },
    Sync { slot: u8 },
    Mkdir { path: Names, mode: Bits },
    Mknod { path: Names, what: Special, mode: Bits },
    Symlink { target: Names, path: Names },
    Readlink { path: Names },
    Link { from: Names, to: Names, follow: bool },
    Rename { from: Names, to: Names, flags: RenameFlags },
    Unlink { path: Names },
    Rmdir { path: Names },
    Chmod { on: On, mode: Bits },
    Chown { on: On, user: Option<u32>, group: Option<u32> },
    Times { on: On, atime: Time, mtime: Time },
    SetXattr { on: On, name: &'static str, len: usize, flags: XattrFlags },
    GetXattr { on: On, name: &'static str, room: usize },
    RemoveXattr { on: On, name: &'static str },
    ListXattr { on: On },
    List { on: On },
    Stat { on: On },
}

impl Op {
    /// Everything that it names.
    pub(super) fn names(&self) -> Vec<On> {
        match self {
            Op::Open { slot, path, .. } => vec![On::Slot(*slot), On::Link(path.clone())],
            Op::Close { slot }
            | Op::Write { slot, .. }
            | Op::Pwrite { slot, .. }
            | Op::Read { slot, .. }
            | Op::Pread { slot, .. }
            | Op::Seek { slot, .. }
            | Op::Allocate { slot, .. }
            | Op::WriteMapped { slot, .. }
            | Op::ReadMapped { slot, .. }
            | Op::Sync { slot } => vec![On::Slot(*slot)],
            Op::Copy { from, to, .. } => vec![On::Slot(*from), On::Slot(*to)],
            Op::Mkdir { path, .. }
            | Op::Mknod { path, .. }
            | Op::Symlink { path, .. }
            | Op::Readlink { path }
            | Op::Unlink { path }
            | Op::Rmdir { path } => vec![On::Link(path.clone()), On::Link(above(path))],
            Op::Link { from, to, .. } | Op::Rename { from, to, .. } => {
                [from.clone(), to.clone(), above(from), above(to)].map(On::Link).into()
            }
            Op::Truncate { on, .. }
            | Op::Chmod { on, .. }
            | Op::Chown { on, .. }
            | Op::Times { on, .. }
            | Op::SetXattr { on, .. }
            | Op::GetXattr { on, .. }
            | Op::RemoveXattr { on, .. }
            | Op::ListXattr { on }
            | Op::List { on }
            | Op::Stat { on } => vec![on.clone()],
        }
    }
}

/// The path of the directory.
fn above(path: &Names) -> Names {
    Names(path.0[..path.0.len() - 1].to_vec())
}
