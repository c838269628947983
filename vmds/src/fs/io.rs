//! Bytes that the kernel does not move itself.

use std::ops::Range;
use std::sync::Arc;

use address_map::attr::{AttrChange, Caller};
use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::limits::FILE_SIZE_MAX;
use parking_lot::Mutex;

use super::error::Errno;
use super::{Changing, Done, Fs, Shown};
use crate::data::fd::{Held, Quick};
use crate::link::KernelRequest;
use crate::notices::{Fence, Notice};

/// Where bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteTo {
    /// So many bytes from the beginning.
    Offset(u64),
    /// Where the file ends.
    End {
        /// Where the kernel believes that it ends. It knows, unless others write too.
        believed: u64,
        /// The request has been sent before, to a process that may have carried it out.
        again: bool,
    },
}

/// The bits that say as whom a program runs.
const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
/// The group may execute.
const GROUP_EXECUTES: u32 = 0o0010;

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
        self.with_bytes(node, offset..offset.saturating_add(size as u64), move |held| {
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
            if let Some(object) = held.as_object() {
                return object.read(offset, size, move |read| done(read.map_err(Errno::from)));
            }
            fs.threads_for(&Arc::clone(&held)).submit(
                done,
                |done| done(Err(Refusal::Io.into())),
                move |owed| {
                    Held::with_buffer(size, |buffer| {
                        let read = held.read(offset, buffer).map_err(Errno::from);
                        if let Some(done) = owed.take() {
                            done(read.map(|read| &buffer[..read]));
                        }
                    });
                },
            );
        });
    }

    /// The lease of an open file, with bytes that are to be read.
    fn with_bytes(self: &Arc<Self>, node: NodeId, range: Range<u64>, done: impl Done<Arc<Held>>) {
        let fs = Arc::clone(self);
        self.with_open(node, move |held| match held {
            Ok(held) => fs.bring_near(node, held, range, false, done),
            Err(errno) => done(Err(errno)),
        });
    }

    /// Writes, and says how many bytes.
    ///
    /// `strip` is the request if its caller may not leave set-user-id and set-group-id bits behind.
    pub(crate) fn write(
        self: &Arc<Self>,
        node: NodeId,
        place: WriteTo,
        data: Vec<u8>,
        strip: Option<KernelRequest>,
        done: impl Done<u32>,
    ) {
        let fs = Arc::clone(self);
        self.take_privileges(node, strip, move |taken| match (taken, place) {
            (Ok(()), WriteTo::Offset(offset)) => fs.write_at(node, offset, data, done),
            (Ok(()), WriteTo::End { believed, .. }) if node.is_own() && fs.leases.is_sole_writer(node) => {
                fs.write_at(node, believed, data, done);
            }
            (Ok(()), WriteTo::End { believed, again }) => {
                fs.append(node, again.then_some(believed), data, done);
            }
            (Err(errno), _) => done(Err(errno)),
        });
    }

    fn write_at(self: &Arc<Self>, node: NodeId, offset: u64, data: Vec<u8>, done: impl Done<u32>) {
        let Some(end) = offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_SIZE_MAX) else {
            return done(Err(Refusal::TooLarge.into()));
        };
        let fs = Arc::clone(self);
        self.change_bytes(node, offset..end, Some(end), done, move |held| {
            let written = held.write(offset, &data)?;
            fs.wrote(node, held, offset..offset + written as u64);
            // The kernel writes at most a mebibyte at a time.
            Ok(written as u32)
        });
    }

    /// Writes to where the file ends. Others may write to it too, so the kernel cannot know where that is. With `before`
    /// the request may have been carried out, most likely there, and must not be a second time.
    fn append(self: &Arc<Self>, node: NodeId, before: Option<u64>, data: Vec<u8>, done: impl Done<u32>) {
        let fs = Arc::clone(self);
        self.with_open_to_change(node, move |open| {
            let (held, changing) = match open {
                Ok(open) => open,
                Err(errno) => return done(Err(errno)),
            };
            let target = Arc::clone(&held);
            let look = move |held: &Held| {
                let done_before = before.is_some_and(|offset| held.has(offset, &data));
                Ok((done_before, held.size()?, data))
            };
            let after = Arc::clone(&fs);
            fs.look(held, look, move |looked| match looked {
                Ok((true, _, data)) => done(Ok(data.len() as u32)),
                Ok((false, size, data)) => after.append_at(node, (target, changing), size, data, done),
                Err(errno) => done(Err(errno)),
            });
        });
    }

    /// Writes to where the file ends, which was at `size`.
    fn append_at(
        self: &Arc<Self>,
        node: NodeId,
        (held, changing): (Arc<Held>, Arc<Changing>),
        size: u64,
        data: Vec<u8>,
        done: impl Done<u32>,
    ) {
        let Some(end) = size.checked_add(data.len() as u64).filter(|end| *end <= FILE_SIZE_MAX) else {
            return done(Err(Refusal::TooLarge.into()));
        };
        let (fs, teller, target) = (Arc::clone(self), Arc::clone(self), Arc::clone(&held));
        let append = move |held: &Held| {
            let written = held.append(&data)?;
            teller.wrote(node, held, size..size + written as u64);
            Ok((written as u32, held.size().unwrap_or(end)))
        };
        self.bring_near(node, held, size..end, true, move |held| {
            let held = match held {
                Ok(held) => held,
                Err(errno) => return done(Err(errno)),
            };
            let (after, rest) = (Arc::clone(&fs), Arc::clone(&changing));
            fs.grow(node, (held, changing), end, append, move |appended| match appended {
                // If others have moved the end meanwhile, that is charged now.
                Ok((written, end)) => {
                    after.grow(node, (target, rest), end, |_| Ok(()), move |_| done(Ok(written)));
                }
                Err(errno) => done(Err(errno)),
            });
        });
    }

    /// Takes away the privileges of a program that a write must not leave: set-user-id and set-group-id bits as `strip`
    /// says, and file capabilities whoever writes.
    fn take_privileges(self: &Arc<Self>, node: NodeId, strip: Option<KernelRequest>, done: impl Done<()>) {
        let fs = Arc::clone(self);
        self.strip(node, strip, move |stripped| match stripped {
            Ok(()) => fs.drop_capability(node, done),
            Err(errno) => done(Err(errno)),
        });
    }

    /// Takes away the bits that a write by this caller must not leave, if there are any.
    fn strip(self: &Arc<Self>, node: NodeId, request: Option<KernelRequest>, done: impl Done<()>) {
        let Some(request) = request else { return done(Ok(())) };
        let fs = Arc::clone(self);
        self.getattr(node, move |shown| {
            let Ok(Shown { attr, .. }) = shown else { return done(shown.map(drop)) };
            // Without permission to execute, the set-group-id bit means something else.
            let kept = if attr.mode & GROUP_EXECUTES == 0 { !SET_UID } else { !(SET_UID | SET_GID) };
            if attr.mode & kept == attr.mode {
                return done(Ok(()));
            }
            let change = AttrChange { mode: Some(attr.mode & kept), ..AttrChange::default() };
            let caller = Caller { uid: attr.uid, gid: attr.gid };
            let stripped = Arc::clone(&fs);
            fs.setattr(request, node, caller, change, move |shown| {
                let result = shown.map(drop);
                let done = Mutex::new(Some(done));
                // The kernel does not know that its write has changed the mode; it hears of it first.
                let told = Fence::before(move || {
                    if let Some(done) = done.lock().take() {
                        done(result);
                    }
                });
                stripped.notices.push(Notice::Inode { node, data: false }, &told);
            });
        });
    }
}
