//! Room within files: allocation, holes, and copies that need not pass through anybody's memory.

use std::sync::Arc;

use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::limits::FILE_SIZE_MAX;
use rustix::fs::{FallocateFlags, SeekFrom};

use super::{Done, Fs};
use crate::data::fd::{COPY_MAX, Held};

/// A place in a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The file.
    pub(crate) node: NodeId,
    /// Bytes from its beginning.
    pub(crate) offset: u64,
}

/// What `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seek {
    /// Data.
    Data,
    /// A hole.
    Hole,
}

impl Fs {
    /// `fallocate(2)`.
    pub(crate) fn fallocate(self: &Arc<Self>, at: Place, len: u64, mode: u32, done: impl Done<()>) {
        let mode = FallocateFlags::from_bits_retain(mode);
        let Some(end) = at.offset.checked_add(len).filter(|end| *end <= FILE_SIZE_MAX) else {
            return done(Err(Refusal::TooLarge.into()));
        };
        let grown = (!mode.contains(FallocateFlags::KEEP_SIZE)).then_some(end);
        self.change_bytes(at.node, at.offset..end, grown, done, move |held| {
            held.allocate(mode, at.offset, len)
        });
    }

    /// The next data or hole.
    pub(crate) fn seek(self: &Arc<Self>, at: Place, what: Seek, done: impl Done<u64>) {
        let fs = Arc::clone(self);
        self.with_open(at.node, move |held| match held {
            Ok(held) => {
                let to = match what {
                    Seek::Data => SeekFrom::Data(at.offset),
                    Seek::Hole => SeekFrom::Hole(at.offset),
                };
                fs.look(held, move |held| held.seek(to), done);
            }
            Err(errno) => done(Err(errno)),
        });
    }

    /// `copy_file_range(2)`; may copy less than `len`.
    pub(crate) fn copy(self: &Arc<Self>, from: Place, to: Place, len: u64, done: impl Done<u32>) {
        let fs = Arc::clone(self);
        self.with_open(from.node, move |source| {
            let source = match source {
                Ok(source) => source,
                Err(errno) => return done(Err(errno)),
            };
            let after = Arc::clone(&fs);
            fs.look(Arc::clone(&source), Held::size, move |size| {
                // No more is charged than is copied.
                let len = match size {
                    Ok(size) => len.min(size.saturating_sub(from.offset)).min(COPY_MAX),
                    Err(errno) => return done(Err(errno)),
                };
                if len == 0 {
                    return done(Ok(0));
                }
                let Some(end) = to.offset.checked_add(len).filter(|end| *end <= FILE_SIZE_MAX) else {
                    return done(Err(Refusal::TooLarge.into()));
                };
                let (fs, read) = (Arc::clone(&after), from.offset..from.offset + len);
                after.bring_near(from.node, source, read, false, move |source| match source {
                    Ok(source) => fs.change_bytes(to.node, to.offset..end, Some(end), done, move |target| {
                        Ok(source.copy_to(from.offset, target, to.offset, len)? as u32)
                    }),
                    Err(errno) => done(Err(errno)),
                });
            });
        });
    }
}
