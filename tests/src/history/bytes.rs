//! Calls on the bytes of open files.

use std::hash::{DefaultHasher, Hasher};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, SeekFrom};
use rustix::io::Errno;

use super::act::Seen;
use super::calls;
use super::step::{Op, Whence};
use crate::fixture::Random;

/// What step `number` writes.
pub(super) fn pattern(number: u64, len: usize) -> Vec<u8> {
    Random::new(number).bytes(len)
}

/// Bytes in a line: their number, a checksum, and the first of them.
pub(super) fn summary(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    let first = &bytes[..bytes.len().min(8)];
    format!("{} bytes {first:02x?} ({:016x})", bytes.len(), hasher.finish())
}

/// The call of step `number`; `open` knows the open files.
pub(super) fn act<'a>(open: impl Fn(u8) -> Option<&'a OwnedFd>, number: u64, op: &Op) -> Result<Seen, Errno> {
    let file = |slot: &u8| open(*slot);
    let act = |slot, act: &dyn Fn(&OwnedFd) -> Result<Seen, Errno>| file(slot).map_or(Ok(Seen::Closed), act);
    let number_of = |result: Result<usize, Errno>| Ok(Seen::Number(result? as u64));
    match op {
        Op::Write { slot, len } => {
            act(slot, &|file| number_of(rustix::io::write(file, &pattern(number, *len))))
        }
        Op::Pwrite { slot, at, len } => {
            act(slot, &|file| number_of(rustix::io::pwrite(file, &pattern(number, *len), *at)))
        }
        Op::Read { slot, len } => act(slot, &|file| match kind_of(file)? {
            // Not from where it is: positions in a directory are the file system's own business, and one has none behind.
            FileType::Directory => read(*len, |room| rustix::io::pread(file, room, 0)),
            _ => read(*len, |room| rustix::io::read(file, room)),
        }),
        Op::Pread { slot, at, len } => {
            act(slot, &|file| read(*len, |room| rustix::io::pread(file, room, *at)))
        }
        Op::Seek { slot, whence, by } => act(slot, &|file| seek(file, position(*whence, *by))),
        Op::Allocate { slot, mode, at, len } => {
            act(slot, &|file| rustix::fs::fallocate(file, *mode, *at, *len).map(|()| Seen::Done))
        }
        Op::Sync { slot } => act(slot, &|file| rustix::fs::fsync(file).map(|()| Seen::Done)),
        Op::WriteMapped { slot, at, len } => act(slot, &|file| {
            let bytes = pattern(number, *len);
            mapped(file, *at, *len, true, |map| {
                map.copy_from_slice(&bytes[..map.len()]);
                Seen::Number(map.len() as u64)
            })
        }),
        Op::ReadMapped { slot, at, len } => {
            act(slot, &|file| mapped(file, *at, *len, false, |map| Seen::Bytes(map.to_vec())))
        }
        Op::Copy { from, from_at, to, to_at, len } => match (file(from), file(to)) {
            (Some(from), Some(to)) => {
                let (mut from_at, mut to_at) = (*from_at, *to_at);
                number_of(rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), *len))
            }
            _ => Ok(Seen::Closed),
        },
        other => unreachable!("{other:?} is not about bytes"),
    }
}

fn read(len: usize, read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Seen, Errno> {
    let mut bytes = vec![0; len];
    let count = read(&mut bytes)?;
    bytes.truncate(count);
    Ok(Seen::Bytes(bytes))
}

fn kind_of(file: &OwnedFd) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode))
}

/// Positions in a directory are the file system's own business.
fn seek(file: &OwnedFd, to: SeekFrom) -> Result<Seen, Errno> {
    if kind_of(file)? == FileType::Directory {
        return Ok(Seen::Done);
    }
    Ok(Seen::Number(rustix::fs::seek(file, to)?))
}

fn position(whence: Whence, by: i64) -> SeekFrom {
    let from_start = by.unsigned_abs();
    match whence {
        Whence::Start => SeekFrom::Start(from_start),
        Whence::Current => SeekFrom::Current(by),
        Whence::End => SeekFrom::End(by),
        Whence::Data => SeekFrom::Data(from_start),
        Whence::Hole => SeekFrom::Hole(from_start),
    }
}

/// As much of a range as a regular file has, mapped; nothing if it has nothing there.
fn mapped(
    file: impl AsFd,
    at: u64,
    len: usize,
    write: bool,
    use_it: impl FnOnce(&mut [u8]) -> Seen,
) -> Result<Seen, Errno> {
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(Seen::Done);
    }
    let size = u64::try_from(stat.st_size).expect("no size is negative");
    let len = size.saturating_sub(at).min(len as u64) as usize;
    if len == 0 {
        return Ok(Seen::Done);
    }
    calls::with_mapping(file, at, len, write, use_it)
}
