//! What can be seen of one inode, in a form that two file systems have in common.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, statx};
use rustix::io::Errno;

/// Times before this were set by a step; later ones come from a clock. 2020, in seconds since 1970.
const CLOCKS_BEGIN: i64 = 1_577_836_800;

/// Attributes of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    kind: FileType,
    mode: u16,
    nlink: u32,
    owner: (u32, u32),
    device: (u32, u32),
    /// What a directory's size means differs between file systems.
    size: Option<u64>,
    /// Only if it was set by a step.
    atime: Option<When>,
    mtime: When,
    ctime: When,
}

/// A time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Set to this by a step.
    At(i64, u32),
    /// By a clock.
    Clock,
    /// By a clock, later than when it was last seen.
    Later,
    /// By a clock, as when it was last seen.
    Same,
    /// By a clock, earlier than when it was last seen.
    Earlier,
}

type Times = [(i64, u32); 2];

/// Times as they were last seen.
#[derive(Debug)]
pub(super) struct Memory {
    /// By inode and when that was made: numbers may be used again.
    last: HashMap<(u64, i64, u32), Times>,
    /// The clock has ticked between two steps, so each change of a time can be seen.
    ticked: bool,
}

impl Memory {
    pub(super) fn new(ticked: bool) -> Self {
        Self { last: HashMap::new(), ticked }
    }

    /// Looks at a path itself, or at an open file.
    pub(super) fn look(&mut self, dir: impl AsFd, path: &Path, flags: AtFlags) -> Result<Look, Errno> {
        let seen = statx(dir, path, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
        let born = if seen.stx_mask & StatxFlags::BTIME.bits() == 0 { (0, 0) } else { pair(seen.stx_btime) };
        let key = (seen.stx_ino, born.0, born.1);
        let times = [pair(seen.stx_mtime), pair(seen.stx_ctime)];
        let before = self.last.insert(key, times);
        Ok(describe(&seen, |which| self.when(times[which], before.map(|before| before[which]))))
    }

    fn when(&self, time: (i64, u32), before: Option<(i64, u32)>) -> When {
        match before {
            _ if time.0 < CLOCKS_BEGIN => When::At(time.0, time.1),
            Some(before) if time < before => When::Earlier,
            Some(before) if self.ticked && time > before => When::Later,
            Some(_) if self.ticked => When::Same,
            _ => When::Clock,
        }
    }
}

fn describe(seen: &Statx, when: impl Fn(usize) -> When) -> Look {
    let kind = FileType::from_raw_mode(u32::from(seen.stx_mode));
    let atime = pair(seen.stx_atime);
    Look {
        kind,
        mode: seen.stx_mode & 0o7777,
        nlink: seen.stx_nlink,
        owner: (seen.stx_uid, seen.stx_gid),
        device: (seen.stx_rdev_major, seen.stx_rdev_minor),
        size: (kind != FileType::Directory).then_some(seen.stx_size),
        atime: (atime.0 < CLOCKS_BEGIN).then_some(When::At(atime.0, atime.1)),
        // Nobody tells a mount of what is written to a pipe.
        mtime: if kind == FileType::Fifo { When::Clock } else { when(0) },
        ctime: when(1),
    }
}

fn pair(time: StatxTimestamp) -> (i64, u32) {
    (time.tv_sec, time.tv_nsec)
}
