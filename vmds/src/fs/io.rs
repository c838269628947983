//! Bytes that the kernel does not move itself.

use std::sync::Arc;

use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::limits::FILE_SIZE_MAX;

use super::error::Errno;
use super::{Done, Fs};
use crate::data::fd::{Held, Quick};

impl Fs {
    /// Reads. `done` borrows the bytes.
    pub(crate) fn read(
        self: &Arc<Self>,
        node: NodeId,
        offset: u64,
        size: usize,
        done: impl FnOnce(Result<&[u8], Errno>) + Send + 'static,
    ) {
        let fs = Arc::clone(self);
        self.with_open(node, false, move |held| {
            let held = match held {
                Ok(held) => held,
                Err(errno) => return done(Err(errno)),
            };
            let done = Held::with_buffer(size, |buffer| match held.read_quickly(offset, buffer) {
                Quick::Read(read) => {
                    done(Ok(&buffer[..read]));
                    None
                }
                Quick::WouldWait => Some(done),
            });
            let Some(done) = done else { return };
            fs.io.submit(move || {
                Held::with_buffer(size, |buffer| {
                    let read = held.read(offset, buffer).map_err(Errno::from);
                    done(read.map(|read| &buffer[..read]));
                });
            });
        });
    }

    /// Writes, and says how many bytes.
    pub(crate) fn write(self: &Arc<Self>, node: NodeId, offset: u64, data: Vec<u8>, done: impl Done<u32>) {
        let Some(end) = offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_SIZE_MAX) else {
            return done(Err(Refusal::TooLarge.into()));
        };
        self.change_bytes(node, Some(end), done, move |held| {
            // The kernel writes at most a mebibyte at a time.
            Ok(held.write(offset, &data)? as u32)
        });
    }

    /// Changes the bytes of an open file on a thread that may wait, after growth up to `end` has been charged.
    pub(super) fn change_bytes<T: 'static>(
        self: &Arc<Self>,
        node: NodeId,
        end: Option<u64>,
        done: impl Done<T>,
        change: impl FnOnce(&Held) -> Result<T, rustix::io::Errno> + Send + 'static,
    ) {
        let fs = Arc::clone(self);
        self.with_open(node, true, move |held| {
            let held = match held {
                Ok(held) => held,
                Err(errno) => return done(Err(errno)),
            };
            let pool = Arc::clone(&fs);
            pool.io.submit(move || {
                let after = Arc::clone(&fs);
                fs.grow(node, held, end.unwrap_or(0), move |held| {
                    let changed = held.and_then(|held| change(&held).map_err(Errno::from));
                    after.touched(node);
                    done(changed);
                });
            });
        });
    }
}
