//! Work on backing files, on threads that may wait for storage; whoever asked for it is answered in time all the same.

use std::ops::Range;
use std::sync::Arc;

use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::wire::Call;

use super::error::Errno;
use super::{Done, Fs};
use crate::data::fd::Held;
use crate::data::pool::IoPool;

/// How often a file may be replaced by another one while somebody waits for bytes of it.
pub(super) const REPLACED_MAX: u32 = 8;

/// A change of bytes that goes on. While there is one this process does not say that nobody writes the file any more:
/// the controller would take the bytes for complete, and remove the backing file.
pub(super) struct Changing {
    pub(super) fs: Arc<Fs>,
    pub(super) node: NodeId,
}

impl Drop for Changing {
    fn drop(&mut self) {
        self.fs.drive(self.fs.leases.has_changed(self.node));
    }
}

impl Fs {
    /// The threads that may wait for this file.
    pub(super) fn threads_for(&self, held: &Held) -> &IoPool {
        if held.lease.remote { &self.remote } else { &self.local }
    }

    /// Asks a backing file for something without changing its bytes.
    pub(super) fn look<T: 'static>(
        self: &Arc<Self>,
        held: Arc<Held>,
        look: impl FnOnce(&Held) -> Result<T, rustix::io::Errno> + Send + 'static,
        done: impl Done<T>,
    ) {
        let fs = Arc::clone(self);
        fs.threads_for(&Arc::clone(&held)).submit(
            done,
            |done| done(Err(Errno::from(Refusal::Io))),
            move |owed| {
                let seen = look(&held).map_err(Errno::from);
                if let Some(done) = owed.take() {
                    done(seen);
                }
            },
        );
    }

    /// Lets go of a descriptor where that may take a while, then goes on with `then`.
    pub(super) fn close(&self, held: Arc<Held>, then: impl FnOnce() + Send + 'static) {
        self.threads_for(&Arc::clone(&held)).tidy(move || {
            drop(held);
            then();
        });
    }

    /// Has bytes that are about to be used brought to the leased file, if they are not there.
    pub(super) fn bring_near(
        self: &Arc<Self>,
        node: NodeId,
        held: Arc<Held>,
        range: Range<u64>,
        write: bool,
        done: impl Done<Arc<Held>>,
    ) {
        self.bring_near_of(node, held, (range, write), REPLACED_MAX, done);
    }

    fn bring_near_of(
        self: &Arc<Self>,
        node: NodeId,
        held: Arc<Held>,
        (range, write): (Range<u64>, bool),
        tries: u32,
        done: impl Done<Arc<Held>>,
    ) {
        let Some(tag) = held.lacks(&range, write) else { return done(Ok(held)) };
        let fs = Arc::clone(self);
        let call = Call::Fill { node, tag, start: range.start, end: range.end, write };
        self.call_patiently(call, move |filled| match filled {
            Ok(_) => {
                held.filled(&range, write);
                done(Ok(held));
            }
            Err(Refusal::Stale) if tries > 0 => {
                fs.drive(fs.leases.replaced(node, &held));
                let again = Arc::clone(&fs);
                let leased = move |held| match held {
                    Ok(held) => again.bring_near_of(node, held, (range, write), tries - 1, done),
                    Err(errno) => done(Err(errno)),
                };
                match write {
                    // Whoever changes the file has begun before.
                    true => fs.with_open_to_change(node, |open| leased(open.map(|(held, _)| held))),
                    false => fs.with_open(node, leased),
                }
            }
            Err(refusal) => done(Err(refusal.into())),
        });
    }

    /// Changes bytes of an open file on a thread that may wait, after growth up to `end` has been charged.
    pub(super) fn change_bytes<T: 'static>(
        self: &Arc<Self>,
        node: NodeId,
        range: Range<u64>,
        end: Option<u64>,
        done: impl Done<T>,
        change: impl FnOnce(&Held) -> Result<T, rustix::io::Errno> + Send + 'static,
    ) {
        let (fs, after) = (Arc::clone(self), Arc::clone(self));
        self.with_open_to_change(node, move |open| match open {
            Ok((held, changing)) => fs.bring_near(node, held, range, true, move |held| match held {
                Ok(held) => after.grow(node, (held, changing), end.unwrap_or(0), change, done),
                Err(errno) => done(Err(errno)),
            }),
            Err(errno) => done(Err(errno)),
        });
    }

    /// Bytes of a file were written: the controller may want to know how far that has come. Nobody waits for it.
    pub(super) fn wrote(&self, node: NodeId, held: &Held, range: Range<u64>) {
        if let Some(end) = held.wrote(range) {
            self.link.call(Call::Wrote { node, end }, |_| {});
        }
    }

    /// Has growth to `end` bytes charged, if it is one, then makes the change.
    pub(super) fn grow<T: 'static>(
        self: &Arc<Self>,
        node: NodeId,
        (held, changing): (Arc<Held>, Arc<Changing>),
        end: u64,
        change: impl FnOnce(&Held) -> Result<T, rustix::io::Errno> + Send + 'static,
        done: impl Done<T>,
    ) {
        if !self.is_metered(node) || held.is_charged(end) {
            return self.make_change(held, changing, change, done);
        }
        let fs = Arc::clone(self);
        let looked_at = Arc::clone(&held);
        self.look(held, Held::size, move |size| match size {
            Ok(size) => {
                looked_at.charged(size);
                if looked_at.is_charged(end) {
                    return fs.make_change(looked_at, changing, change, done);
                }
                let charge = Call::Grow { node, size: end };
                let after = Arc::clone(&fs);
                fs.ask(charge, super::accept_done, move |charged| match charged {
                    Ok(()) => {
                        looked_at.charged(end);
                        after.make_change(looked_at, changing, change, done);
                    }
                    Err(refusal) => done(Err(refusal.into())),
                });
            }
            Err(errno) => done(Err(errno)),
        });
    }

    fn make_change<T: 'static>(
        &self,
        held: Arc<Held>,
        changing: Arc<Changing>,
        change: impl FnOnce(&Held) -> Result<T, rustix::io::Errno> + Send + 'static,
        done: impl Done<T>,
    ) {
        self.threads_for(&Arc::clone(&held)).submit(
            done,
            |done| done(Err(Errno::from(Refusal::Io))),
            move |owed| {
                let changed = change(&held).map_err(Errno::from);
                changing.fs.touched(changing.node);
                // It has ended before the answer to it, which may long have been given.
                drop(changing);
                if let Some(done) = owed.take() {
                    done(changed);
                }
            },
        );
    }
}
