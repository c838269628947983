//! One lease: a descriptor and the plain system calls on it, or what stands for one in an object store. Nothing here
//! knows of caches, quotas or the kernel's requests.

use std::cell::RefCell;
use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use address_map::attr::{Attr, Timestamp};
use address_map::wire::Lease;
use rustix::fs::{AtFlags, FallocateFlags, SeekFrom, Statx, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::near::{Chunks, Tip};
use super::store::Object;

/// How leases that are no descriptors are used.
const FLOATING: Lease =
    Lease { write: false, backing: None, floating: true, remote: false, alone: true, near: None };

/// Most bytes copied by one request, so that no thread of the pool is taken for long; callers go on with the rest.
pub(crate) const COPY_MAX: u64 = 64 * 1024 * 1024;

/// Where the bytes of a lease are.
#[derive(Debug)]
enum Bytes {
    /// Behind a descriptor.
    File(OwnedFd),
    /// Here.
    Inline(Vec<u8>),
    /// In an object store.
    Object(Arc<Object>),
    /// To be asked for when they are needed.
    Unfilled,
    /// Elsewhere by now: the lease is to be asked for again, whatever it is wanted for.
    Lapsed,
}

/// A lease.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: Bytes,
    /// How the controller said to use it.
    pub(crate) lease: Lease,
    /// Size up to which growth is known to be charged, bytes.
    charged: AtomicU64,
    /// What of it is there already; `None`: all.
    chunks: Option<Chunks>,
    tip: Tip,
}

thread_local! {
    /// Scratch space for reads, kept by each thread that reads.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How a read that must not wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Quick {
    /// All there is was read: this many bytes.
    Read(usize),
    /// It would have to wait for the storage.
    WouldWait,
}

impl Held {
    /// Takes over a descriptor.
    pub(crate) fn new(fd: OwnedFd, lease: Lease) -> Self {
        Self::of(Bytes::File(fd), lease)
    }

    /// All bytes of a file.
    pub(crate) fn inline(bytes: Vec<u8>) -> Self {
        Self::of(Bytes::Inline(bytes), FLOATING)
    }

    /// An object that can only be read.
    pub(crate) fn object(object: Arc<Object>) -> Self {
        Self::of(Bytes::Object(object), FLOATING)
    }

    /// A lease whose bytes are to be asked for.
    pub(crate) fn unfilled(write: bool) -> Self {
        Self::of(Bytes::Unfilled, Lease { write, ..FLOATING })
    }

    /// What is left of a lease whose bytes are elsewhere by now.
    pub(crate) fn lapsed() -> Self {
        Self::of(Bytes::Lapsed, FLOATING)
    }

    fn of(bytes: Bytes, lease: Lease) -> Self {
        let chunks = lease.near.map(Chunks::new);
        Self { bytes, lease, charged: AtomicU64::new(0), chunks, tip: Tip::default() }
    }

    /// If the controller has to be asked for these bytes before they are used, for those of which file.
    pub(crate) fn lacks(&self, range: &Range<u64>, write: bool) -> Option<u64> {
        self.chunks.as_ref().filter(|chunks| chunks.lack(range, write)).map(Chunks::tag)
    }

    /// The controller has been asked.
    pub(crate) fn filled(&self, range: &Range<u64>, write: bool) {
        if let Some(chunks) = &self.chunks {
            chunks.have(range, write);
        }
    }

    /// Bytes were written. Answers how far the file has been written from its beginning on, when the controller should
    /// know.
    pub(crate) fn wrote(&self, range: Range<u64>) -> Option<u64> {
        if self.lease.floating && self.chunks.is_none() { self.tip.wrote(range) } else { None }
    }

    /// Whether it serves for opening a handle, or with `bytes` for using one.
    pub(crate) fn serves(&self, bytes: bool) -> bool {
        match self.bytes {
            Bytes::File(_) | Bytes::Inline(_) | Bytes::Object(_) => true,
            Bytes::Unfilled => !bytes,
            Bytes::Lapsed => false,
        }
    }

    /// Whether the backing file is the truth about a volatile inode.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.bytes, Bytes::File(_)) && !self.is_copy()
    }

    /// Whether it reads a copy of an object, perhaps: others may want its room when nobody has it open.
    pub(crate) fn is_copy(&self) -> bool {
        self.lease.floating && !self.lease.write && self.lease.near.is_some()
    }

    /// The object to read from, if it is one.
    pub(crate) fn as_object(&self) -> Option<&Arc<Object>> {
        if let Bytes::Object(object) = &self.bytes { Some(object) } else { None }
    }

    /// The descriptor.
    fn file(&self) -> Result<&OwnedFd, Errno> {
        match &self.bytes {
            Bytes::File(fd) => Ok(fd),
            // A call that could be made elsewhere, as copying in the kernel.
            _ => Err(Errno::XDEV),
        }
    }

    /// Gives `use_it` a buffer of `size` bytes that belongs to this thread.
    pub(crate) fn with_buffer<T>(size: usize, use_it: impl FnOnce(&mut [u8]) -> T) -> T {
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            use_it(&mut buffer[..size])
        })
    }

    /// Reads what the page cache has.
    pub(crate) fn read_quickly(&self, offset: u64, into: &mut [u8]) -> Quick {
        // Some file systems ask another machine whether what is in memory still holds, whatever they are told.
        let fd = match &self.bytes {
            Bytes::File(fd) if !self.lease.remote => fd,
            Bytes::Inline(bytes) => return Quick::Read(copy_from(bytes, offset, into)),
            _ => return Quick::WouldWait,
        };
        let mut done = 0;
        while done < into.len() {
            let mut rest = [IoSliceMut::new(&mut into[done..])];
            match rustix::io::preadv2(fd, &mut rest, offset + done as u64, ReadWriteFlags::NOWAIT) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(_) => return Quick::WouldWait,
            }
        }
        Quick::Read(done)
    }

    /// Reads until `into` is full or the file ends.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<usize, Errno> {
        if let Bytes::Inline(bytes) = &self.bytes {
            return Ok(copy_from(bytes, offset, into));
        }
        let fd = self.file()?;
        let mut done = 0;
        while done < into.len() {
            match rustix::io::pread(fd, &mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                // What was read is good; the error comes back with the next request.
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes all of `data`, or as much as goes.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let fd = self.file()?;
        let mut done = 0;
        while done < data.len() {
            match rustix::io::pwrite(fd, &data[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Whether these bytes, if there are any, are there.
    pub(crate) fn has(&self, offset: u64, data: &[u8]) -> bool {
        let mut there = vec![0; data.len()];
        self.read(offset, &mut there) == Ok(data.len()) && there == data && !data.is_empty()
    }

    /// Writes all of `data`, or as much as goes, to where the file ends at that moment, whoever else writes.
    pub(crate) fn append(&self, data: &[u8]) -> Result<usize, Errno> {
        let fd = self.file()?;
        let mut done = 0;
        while done < data.len() {
            let rest = [IoSlice::new(&data[done..])];
            match rustix::io::pwritev2(fd, &rest, 0, ReadWriteFlags::APPEND) {
                Ok(0) => break,
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// `fallocate(2)`.
    pub(crate) fn allocate(&self, mode: FallocateFlags, offset: u64, len: u64) -> Result<(), Errno> {
        let fd = self.file()?;
        rustix::io::retry_on_intr(|| rustix::fs::fallocate(fd, mode, offset, len))
    }

    /// `lseek(2)` for data and holes. Moves the position of the descriptor, which nobody uses.
    pub(crate) fn seek(&self, to: SeekFrom) -> Result<u64, Errno> {
        match (self.file(), to) {
            (Ok(fd), to) if self.chunks.is_none() => rustix::fs::seek(fd, to),
            // All of it is data, as far as anybody knows, and behind its end is a hole.
            (_, SeekFrom::Data(offset)) if offset < self.size()? => Ok(offset),
            (_, SeekFrom::Hole(offset)) if offset < self.size()? => self.size(),
            _ => Err(Errno::NXIO),
        }
    }

    /// `copy_file_range(2)` of at most [`COPY_MAX`] bytes; may copy less than asked.
    pub(crate) fn copy_to(
        &self,
        mut from: u64,
        target: &Held,
        mut to: u64,
        len: u64,
    ) -> Result<usize, Errno> {
        let len = len.min(COPY_MAX) as usize;
        let (source, target) = (self.file()?, target.file()?);
        rustix::io::retry_on_intr(|| {
            rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), len)
        })
    }

    /// Size, in bytes.
    pub(crate) fn size(&self) -> Result<u64, Errno> {
        match &self.bytes {
            Bytes::File(fd) => Ok(rustix::fs::fstat(fd)?.st_size.unsigned_abs()),
            Bytes::Inline(bytes) => Ok(bytes.len() as u64),
            Bytes::Object(object) => Ok(object.size()),
            Bytes::Unfilled | Bytes::Lapsed => Err(Errno::IO),
        }
    }

    /// Brings size, blocks and times of `attr` up to date. May wait for the storage.
    pub(crate) fn refresh(&self, attr: Attr) -> Result<Attr, Errno> {
        Ok(merge(attr, &self.statx(AtFlags::empty())?))
    }

    /// As [`Held::refresh`], but only if the file is on a local file system: there it needs no waiting, and what is in
    /// memory is the truth.
    pub(crate) fn refresh_quickly(&self, attr: Attr) -> Option<Attr> {
        if self.lease.remote {
            return None;
        }
        Some(merge(attr, &self.statx(AtFlags::STATX_DONT_SYNC).ok()?))
    }

    fn statx(&self, flags: AtFlags) -> Result<Statx, Errno> {
        let wanted = StatxFlags::SIZE | StatxFlags::BLOCKS | StatxFlags::MTIME;
        rustix::fs::statx(self.file()?, c"", flags | AtFlags::EMPTY_PATH, wanted)
    }

    /// Whether the file may reach `end` bytes without a further charge.
    pub(crate) fn is_charged(&self, end: u64) -> bool {
        end <= self.charged.load(Ordering::Acquire)
    }

    /// Growth up to `end` bytes is charged.
    pub(crate) fn charged(&self, end: u64) {
        self.charged.fetch_max(end, Ordering::AcqRel);
    }

    /// The size has been changed by others than our writes: nothing is known of what is charged.
    pub(crate) fn forget_charge(&self) {
        self.charged.store(0, Ordering::Release);
    }
}

/// Copies what `bytes` have from `offset` on; answers how many.
fn copy_from(bytes: &[u8], offset: u64, into: &mut [u8]) -> usize {
    let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
    let length = rest.len().min(into.len());
    into[..length].copy_from_slice(&rest[..length]);
    length
}

fn merge(attr: Attr, stat: &Statx) -> Attr {
    let mtime = Timestamp::new(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec);
    // A write is a change of the inode as well.
    let ctime = if mtime == attr.mtime { attr.ctime } else { attr.ctime.max(mtime) };
    Attr { size: stat.stx_size, blocks: stat.stx_blocks, mtime, ctime, ..attr }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{file_attr, held};

    #[test]
    fn reads_and_writes_are_whole() {
        let file = held(b"0123456789", true);
        let mut buffer = [0; 16];
        assert_eq!(file.read(4, &mut buffer), Ok(6));
        assert_eq!(&buffer[..6], b"456789");
        assert_eq!(file.write(8, b"abcd"), Ok(4));
        assert_eq!(file.size(), Ok(12));
        assert_eq!(file.append(b""), Ok(0));
        assert_eq!(file.append(b"ef"), Ok(2));
        assert!(file.has(12, b"ef") && !file.has(12, b"ex") && !file.has(13, b"f?"));
        assert_eq!(file.read(10, &mut buffer), Ok(4));
        assert_eq!(&buffer[..4], b"cdef");
        match file.read_quickly(0, &mut buffer) {
            Quick::Read(read) => assert_eq!(&buffer[..read], b"01234567abcdef"),
            Quick::WouldWait => {} // not every file system can tell
        }
    }

    #[test]
    fn times_and_size_come_from_the_file() {
        let file = held(b"12345", true);
        let attr = file.refresh(file_attr(0)).unwrap();
        assert_eq!(attr.size, 5);
        assert!(attr.mtime > file_attr(0).mtime);
        assert_eq!(attr.ctime, attr.mtime);
        let later = Attr { ctime: Timestamp::new(i64::MAX, 0), ..file_attr(0) };
        assert_eq!(file.refresh(later).unwrap().ctime, later.ctime);
    }

    #[test]
    fn charges_only_grow_until_forgotten() {
        let file = held(b"", true);
        assert!(file.is_charged(0) && !file.is_charged(1));
        file.charged(10);
        file.charged(5);
        assert!(file.is_charged(10));
        file.forget_charge();
        assert!(!file.is_charged(1));
    }
}
