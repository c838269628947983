//! Attributes of inodes as the namespace keeps and shows them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bincode::{Decode, Encode};

/// A point in time, nanosecond precision, years far beyond 2038 on both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Timestamp {
    /// Seconds since the Unix epoch; negative before it.
    pub sec: i64,
    /// Nanoseconds within the second, 0 to 999,999,999.
    pub nsec: u32,
}

impl Timestamp {
    /// Seconds and nanoseconds, as `struct timespec` has them. Nanoseconds out of range are clamped.
    pub fn new(sec: i64, nsec: u32) -> Self {
        Self { sec, nsec: nsec.min(999_999_999) }
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self::new(i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                let sec = i64::try_from(before.as_secs()).map_or(i64::MIN + 1, |s| -s);
                match before.subsec_nanos() {
                    0 => Self::new(sec, 0),
                    nanos => Self::new(sec.saturating_sub(1), 1_000_000_000 - nanos),
                }
            }
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let whole = Duration::from_secs(time.sec.unsigned_abs());
        let base = if time.sec >= 0 { UNIX_EPOCH.checked_add(whole) } else { UNIX_EPOCH.checked_sub(whole) };
        base.and_then(|b| b.checked_add(Duration::from_nanos(u64::from(time.nsec)))).unwrap_or(UNIX_EPOCH)
    }
}

/// What kind of thing an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix-domain socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// The attributes of one inode, as `stat` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attr {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, setuid, setgid and sticky: `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names (2 + sub-directories for a directory).
    pub nlink: u32,
    /// Size in bytes.
    pub size: u64,
    /// Allocated size in units of 512 bytes.
    pub blocks: u64,
    /// Device number of a device node.
    pub rdev: u32,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of contents.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// Creation.
    pub crtime: Timestamp,
    /// The inode has extended attributes. When unset, looking for one needs no round trip.
    pub has_xattrs: bool,
    /// Somebody may be writing: size, blocks and mtime are those of the backing file at the moment of asking,
    /// and whoever holds a lease asks the backing file instead of trusting a copy.
    pub volatile: bool,
}

/// The caller of an operation, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Caller {
    /// Effective uid: owner of what is created.
    pub uid: u32,
    /// Effective gid: group of what is created, unless the directory is set-gid.
    pub gid: u32,
}

/// The permission bits that a new inode is asked to have. The directory's default access control list decides if there
/// is one, the umask if not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NewMode {
    /// Bits asked for, `0o7777`.
    pub mode: u32,
    /// The caller's umask: bits to take away, `0o777`.
    pub umask: u32,
}

impl NewMode {
    /// These bits and no others, save for a default access control list.
    pub const fn exactly(mode: u32) -> Self {
        Self { mode, umask: 0 }
    }

    /// The bits where no access control list decides.
    pub fn masked(self) -> u32 {
        self.mode & !(self.umask & 0o777) & 0o7777
    }
}

/// A change of time: to a given one, or to the clock of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SetTime {
    /// The map's own clock.
    Now,
    /// This very time.
    To(Timestamp),
}

/// What `setattr` shall change; absent fields stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct AttrChange {
    /// New permission bits, `0o7777`.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size, bytes.
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<SetTime>,
    /// New modification time.
    pub mtime: Option<SetTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_round_trip_on_both_sides_of_the_epoch() {
        for time in [Timestamp::new(0, 0), Timestamp::new(-1, 5), Timestamp::new(1 << 33, 999_999_999)] {
            assert_eq!(Timestamp::from(SystemTime::from(time)), time);
        }
    }
}
