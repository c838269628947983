//! Names to inodes.

use std::sync::Arc;
use std::time::Duration;

use address_map::attr::Attr;
use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::name::Name;
use address_map::wire::{Answer, Call};

use super::error::Errno;
use super::{Done, Fs, Known, Shown};

/// Where a name leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// To an inode.
    Found(Shown),
    /// Nowhere, and for so long the kernel may believe it.
    Absent {
        /// How long.
        ttl: Duration,
    },
}

impl Fs {
    /// The inode behind a name.
    pub(crate) fn lookup(self: &Arc<Self>, parent: NodeId, name: &[u8], done: impl Done<Looked>) {
        let name = match Name::new(name) {
            Ok(name) => name,
            Err(error) => return done(Err(error.into())),
        };
        match self.cache.entry(parent, &name) {
            Some(None) => done(Ok(Looked::Absent { ttl: self.ttl })),
            Some(Some(node)) => match self.known(node) {
                Some(Known::Now(attr)) => done(Ok(self.found(parent, node, attr))),
                Some(Known::OnFile(held, attr)) => {
                    let fs = Arc::clone(self);
                    let refreshed =
                        move |attr: Result<_, _>| done(attr.map(|attr| fs.found(parent, node, attr)));
                    self.look(held, move |held| held.refresh(attr), refreshed);
                }
                None => self.ask_lookup(parent, name, done),
            },
            None => self.ask_lookup(parent, name, done),
        }
    }

    fn found(&self, parent: NodeId, node: NodeId, attr: Attr) -> Looked {
        Looked::Found(self.shown(Some(parent), node, attr, true))
    }

    fn ask_lookup(self: &Arc<Self>, parent: NodeId, name: Name, done: impl Done<Looked>) {
        let fs = Arc::clone(self);
        let stamp = self.cache.stamp();
        let call = Call::Lookup { parent, name: name.clone() };
        let accept = |answer| if let Answer::Found(found) = answer { Some(found) } else { None };
        self.ask(call, accept, move |found| {
            done(match found {
                Ok(found) => {
                    let kept = fs.cache.learn(stamp, |facts| {
                        facts.attr(found.node, found.attr);
                        facts.entry(parent, &name, Some(found.node));
                    });
                    Ok(Looked::Found(fs.shown(Some(parent), found.node, found.attr, kept)))
                }
                Err(Refusal::NotFound) if parent.is_own() => {
                    let kept = fs.cache.learn(stamp, |facts| facts.entry(parent, &name, None));
                    let ttl = if kept { fs.ttl } else { Duration::ZERO };
                    Ok(Looked::Absent { ttl })
                }
                Err(refusal) => Err(refusal.into()),
            });
        });
    }

    /// Target of a symbolic link.
    pub(crate) fn readlink(self: &Arc<Self>, node: NodeId, done: impl Done<Arc<[u8]>>) {
        if let Some(target) = self.cache.target(node) {
            return done(Ok(target));
        }
        let fs = Arc::clone(self);
        let stamp = self.cache.stamp();
        self.ask(Call::Readlink { node }, super::accept_bytes, move |target| {
            if let Ok(target) = &target {
                fs.cache.learn(stamp, |facts| facts.target(node, target));
            }
            done(target.map(Arc::from).map_err(Errno::from));
        });
    }

    /// The kernel has forgotten an inode. Memory is freed, and handles that a process before this one has left, if
    /// there were any, are gone.
    pub(crate) fn forget(self: &Arc<Self>, node: NodeId) {
        if !self.leases.is_open(node) {
            self.cache.let_go(node);
        }
        if self.generation > 1 {
            self.drive(self.leases.forgotten(node));
        }
    }
}
