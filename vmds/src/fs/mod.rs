//! What each operation means, without a word of FUSE: every function takes plain values and a continuation that
//! runs exactly once, at once if the answer is known here, later otherwise.
//!
//! Nothing here waits for the controller or for storage on the calling thread.

mod attr;
pub(crate) mod error;
mod io;
mod link;
mod list;
mod lookup;
mod make;
mod open;
mod remove;
mod rename;
mod space;
mod stale;
mod statfs;
mod storage;
mod sync;
mod xattr;

use std::sync::Arc;
use std::time::Duration;

use address_map::attr::Attr;
use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::wire::{Answer, Call, Source, Welcome};
use tracing::error;

pub(crate) use io::WriteTo;
pub(crate) use list::Listing;
pub(crate) use lookup::Looked;
pub(crate) use make::Created;

pub(crate) use open::{Handle, Opened};
pub(crate) use space::{Place, Seek};
pub(crate) use xattr::AttrBytes;

use crate::data::fd::Held;
use crate::data::leases::{Denied, Granted, Leases, Step, Steps, Want};
use crate::data::pool::IoPool;
use crate::data::store::Store;
use crate::link::{KernelRequest, Link, Outcome};
use crate::namespace::{Facts, Namespace};
use crate::notices::Notices;
use error::Errno;
use storage::Changing;

/// How often a quota that is used up is asked for again.
const QUOTA_PATIENCE: u32 = 5;
/// How long a request may wait for a local disk: writing out gigabytes takes minutes, and is no reason to fail.
const LOCAL_PATIENCE: Duration = Duration::from_secs(600);
/// How long before each time.
const QUOTA_PAUSE: Duration = Duration::from_millis(10);

/// A continuation that takes the result of an operation.
pub(crate) trait Done<T>: FnOnce(Result<T, Errno>) + Send + 'static {}

impl<T, F: FnOnce(Result<T, Errno>) + Send + 'static> Done<T> for F {}

/// An inode as the kernel is shown it, and for how long the kernel may believe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The inode.
    pub(crate) node: NodeId,
    /// Its attributes.
    pub(crate) attr: Attr,
    /// How long its name leads there.
    pub(crate) entry_ttl: Duration,
    /// How long its attributes hold.
    pub(crate) attr_ttl: Duration,
}

/// The file system of one tenant.
pub(crate) struct Fs {
    link: Arc<Link>,
    cache: Namespace,
    leases: Leases,
    /// Threads for files on local disks, which answer in the end.
    local: IoPool,
    /// Threads for files that may depend on another machine: what hangs there stops nothing else.
    remote: IoPool,
    store: Store,
    notices: Arc<Notices>,
    ttl: Duration,
    metered: bool,
    generation: u32,
}

/// What is known of the attributes of an inode.
enum Known {
    /// These they are.
    Now(Attr),
    /// Size and times have to be read from the backing file.
    OnFile(Arc<Held>, Attr),
}

impl Fs {
    /// A file system that asks through `link`, as `welcome` says, with at most `descriptors_max` leases at a time.
    pub(crate) fn new(
        link: Arc<Link>,
        notices: Arc<Notices>,
        welcome: &Welcome,
        descriptors_max: usize,
    ) -> Arc<Self> {
        let options = &welcome.options;
        Arc::new(Self {
            store: Store::new(Arc::clone(&link), options.buffer_bytes as usize),
            link,
            cache: Namespace::new(options.cache_entries as usize),
            leases: Leases::new(options.leases_max as usize, descriptors_max),
            local: IoPool::new(LOCAL_PATIENCE),
            remote: IoPool::new(Duration::from_millis(options.pool_timeout_ms)),
            notices,
            ttl: Duration::from_millis(options.ttl_ms),
            metered: options.metered,
            generation: welcome.generation,
        })
    }

    /// The kernel can move bytes itself between applications and backing files.
    pub(crate) fn allow_passthrough(&self) {
        self.leases.allow_passthrough();
    }

    /// How the kernel is shown `node`. `kept` says that changes of it will be pushed from now on.
    fn shown(&self, parent: Option<NodeId>, node: NodeId, attr: Attr, kept: bool) -> Shown {
        let keep = kept && node.is_own();
        // Who alone writes through this mount keeps the kernel's size true itself; a file that others write to changes
        // unseen.
        let settled = !attr.volatile || self.leases.is_sole_writer(node);
        let ttl_if = |yes| if yes { self.ttl } else { Duration::ZERO };
        let entry_ttl = ttl_if(keep && parent.is_none_or(NodeId::is_own));
        Shown { node, attr, entry_ttl, attr_ttl: ttl_if(keep && settled) }
    }

    /// The attributes of `node` as far as they are known without asking the controller.
    fn known(&self, node: NodeId) -> Option<Known> {
        let attr = self.cache.attr(node)?;
        if !attr.volatile {
            return Some(Known::Now(attr));
        }
        let held = self.leases.held(node).filter(|held| held.is_file())?;
        Some(match held.refresh_quickly(attr) {
            Some(attr) => Known::Now(attr),
            None => Known::OnFile(held, attr),
        })
    }

    /// Asks the controller, patiently; an answer that `accept` does not take is a broken protocol.
    fn ask<T>(
        self: &Arc<Self>,
        call: Call,
        accept: impl FnOnce(Answer) -> Option<T> + Send + 'static,
        done: impl FnOnce(Result<T, Refusal>) + Send + 'static,
    ) {
        self.call_patiently(call, move |outcome| {
            done(match outcome {
                Ok((answer, _)) => accept(answer).ok_or_else(unexpected),
                Err(refusal) => Err(refusal),
            });
        });
    }

    /// Has the controller change something. A quota that is used up is asked for again: what a file that was just
    /// closed and deleted has used is given back a moment later.
    fn change(
        self: &Arc<Self>,
        request: KernelRequest,
        call: Call,
        done: impl FnOnce(Outcome) + Send + 'static,
    ) {
        self.change_after(0, request, call, Box::new(done));
    }

    fn change_after(
        self: &Arc<Self>,
        refused: u32,
        request: KernelRequest,
        call: Call,
        done: Box<dyn FnOnce(Outcome) + Send>,
    ) {
        let fs = Arc::clone(self);
        let again = call.clone();
        self.link.change(request, call, move |outcome| match outcome {
            Err(Refusal::Quota) if refused < QUOTA_PATIENCE => {
                let pool = Arc::clone(&fs);
                pool.local.submit(
                    done,
                    |done| done(Err(Refusal::Quota)),
                    move |owed| {
                        std::thread::sleep(QUOTA_PAUSE);
                        if let Some(done) = owed.take() {
                            fs.change_after(refused + 1, request, again, done);
                        }
                    },
                );
            }
            // Nothing is changed yet: what it needs takes long.
            Ok((Answer::Pending, _)) => fs.change_after(refused, request, again, done),
            outcome => done(outcome),
        });
    }

    /// As [`Fs::change`], for an answer without descriptor; as [`Fs::ask`] otherwise.
    fn ask_change<T>(
        self: &Arc<Self>,
        request: KernelRequest,
        call: Call,
        accept: impl FnOnce(Answer) -> Option<T> + Send + 'static,
        done: impl FnOnce(Result<T, Refusal>) + Send + 'static,
    ) {
        self.change(request, call, move |outcome| {
            done(match outcome {
                Ok((answer, _)) => accept(answer).ok_or_else(unexpected),
                Err(refusal) => Err(refusal),
            });
        });
    }

    /// Gets the lease of `node` for a request.
    fn with_lease(
        self: &Arc<Self>,
        node: NodeId,
        want: Want,
        done: impl FnOnce(Result<Granted, Denied>) + Send + 'static,
    ) {
        let steps = self.leases.want(node, want, done);
        self.drive(steps);
    }

    /// Gets the lease of `node` for reading by a handle that is open already.
    fn with_open(self: &Arc<Self>, node: NodeId, done: impl Done<Arc<Held>>) {
        self.with_lease(node, Want::Use { write: false }, move |granted| {
            done(granted.map(|granted| granted.held).map_err(of_open));
        });
    }

    /// The same for a change of bytes, which goes on until what comes with the lease is dropped.
    fn with_open_to_change(self: &Arc<Self>, node: NodeId, done: impl Done<(Arc<Held>, Arc<Changing>)>) {
        let fs = Arc::clone(self);
        self.with_lease(node, Want::Use { write: true }, move |granted| {
            let changing = |granted: Granted| (granted.held, Arc::new(Changing { fs, node }));
            done(granted.map(changing).map_err(of_open));
        });
    }

    /// Asks the controller for what may take it long, again as long as it says that it is at it.
    fn call_patiently(self: &Arc<Self>, call: Call, done: impl FnOnce(Outcome) + Send + 'static) {
        self.call_again(call, Box::new(done));
    }

    fn call_again(self: &Arc<Self>, call: Call, done: Box<dyn FnOnce(Outcome) + Send>) {
        let fs = Arc::clone(self);
        let again = call.clone();
        self.link.call(call, move |outcome| match outcome {
            Ok((Answer::Pending, _)) => fs.call_again(again, done),
            outcome => done(outcome),
        });
    }

    /// The lease in an answer, with the attributes of its file.
    fn leased(&self, node: NodeId, write: bool, outcome: Outcome) -> Result<(Attr, Held), Refusal> {
        match outcome? {
            (Answer::Leased { attr, lease }, Some(fd)) => Ok((attr, Held::new(fd, lease))),
            (Answer::Addressed { attr, source }, None) => Ok((
                attr,
                match source {
                    Source::Unfilled => Held::unfilled(write),
                    Source::Inline(bytes) => Held::inline(bytes),
                    Source::Address(address) => Held::object(self.store.object(node, address)),
                },
            )),
            _ => Err(unexpected()),
        }
    }

    /// Takes the steps that the table of leases has decided on.
    fn drive(self: &Arc<Self>, mut steps: Steps) {
        while let Some(step) = steps.pop_front() {
            match step {
                Step::Answer(done, granted) => done(granted),
                Step::Released(done) => done(),
                // Closing may wait for the storage.
                Step::Discard(held) => self.close(held, || {}),
                Step::Drop { node, held, forgotten } => {
                    let fs = Arc::clone(self);
                    let dropped = move || {
                        match forgotten {
                            true => fs.link.kernel_forgot(node),
                            false => fs.link.lease_dropped(node),
                        }
                        fs.drive(fs.leases.dropped(node));
                    };
                    match held {
                        Some(held) => self.close(held, dropped),
                        // There may be very many at once, and there is nothing to close.
                        None if forgotten => dropped(),
                        None => self.local.tidy(dropped),
                    }
                }
                Step::Ask { node, write, fill } => {
                    let fs = Arc::clone(self);
                    let stamp = self.cache.stamp();
                    self.call_patiently(Call::Lease { node, write, fill }, move |outcome| {
                        let answer = fs.leased(node, write, outcome).map(|(attr, held)| {
                            if write {
                                fs.cache.change(stamp, |facts| facts.attr(node, attr));
                            } else {
                                fs.cache.learn(stamp, |facts| facts.attr(node, attr));
                            }
                            held
                        });
                        fs.drive(fs.leases.answered(node, answer));
                    });
                }
                Step::CloseWrite { node } => {
                    let fs = Arc::clone(self);
                    let stamp = self.cache.stamp();
                    self.call_patiently(Call::CloseWrite { node }, move |outcome| {
                        fs.cache.change(stamp, |facts| match outcome {
                            Ok((Answer::Attr(attr), _)) => facts.attr(node, attr),
                            _ => facts.attr_unknown(node),
                        });
                        fs.drive(fs.leases.closed(node));
                    });
                }
            }
        }
    }

    /// A change was refused. Nothing has happened then, unless the answer failed to come: what it would have
    /// touched is not known any more.
    fn doubt(&self, refusal: Refusal, record: impl FnOnce(&Facts<'_>)) -> Errno {
        if refusal == Refusal::Io {
            self.cache.forget(record);
        }
        refusal.into()
    }

    /// The bytes of `node` were changed through a descriptor of ours: attributes that claim to be settled are not.
    fn touched(&self, node: NodeId) {
        if self.cache.attr(node).is_some_and(|attr| !attr.volatile) {
            self.cache.forget(|facts| facts.attr_unknown(node));
        }
    }

    /// Whether growth of `node` has to be charged before it happens.
    fn is_metered(&self, node: NodeId) -> bool {
        self.metered || !node.is_own()
    }
}

/// Why a handle that is open gets no lease. What was open and has gone is an I/O error.
fn of_open(denied: Denied) -> Errno {
    match denied {
        Denied::Refused(Refusal::NotFound) => Refusal::Io.into(),
        denied => denied.into(),
    }
}

/// The controller answered something else than was asked.
fn unexpected() -> Refusal {
    error!("the controller's answer does not fit the question");
    Refusal::Io
}

/// Accepts the attributes of an inode as an answer.
fn accept_attr(answer: Answer) -> Option<Attr> {
    if let Answer::Attr(attr) = answer { Some(attr) } else { None }
}

/// Accepts bytes as an answer.
fn accept_bytes(answer: Answer) -> Option<Vec<u8>> {
    if let Answer::Bytes(bytes) = answer { Some(bytes) } else { None }
}

/// Accepts that there is nothing to say.
fn accept_done(answer: Answer) -> Option<()> {
    matches!(answer, Answer::Done).then_some(())
}

#[cfg(test)]
mod tests;
