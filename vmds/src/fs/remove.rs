//! Names that go.

use std::sync::Arc;

use address_map::attr::FileKind;
use address_map::ids::NodeId;
use address_map::name::Name;
use address_map::wire::{Answer, Call, NodeAttr};

use super::{Done, Fs};
use crate::link::KernelRequest;
use crate::namespace::Facts;

impl Fs {
    /// Removes a name of anything but a directory.
    pub(crate) fn unlink(
        self: &Arc<Self>,
        request: KernelRequest,
        parent: NodeId,
        name: &[u8],
        done: impl Done<()>,
    ) {
        self.remove(request, parent, name, |parent, name| Call::Unlink { parent, name }, done);
    }

    /// Removes an empty directory.
    pub(crate) fn rmdir(
        self: &Arc<Self>,
        request: KernelRequest,
        parent: NodeId,
        name: &[u8],
        done: impl Done<()>,
    ) {
        self.remove(request, parent, name, |parent, name| Call::Rmdir { parent, name }, done);
    }

    fn remove(
        self: &Arc<Self>,
        request: KernelRequest,
        parent: NodeId,
        name: &[u8],
        call: impl FnOnce(NodeId, Name) -> Call,
        done: impl Done<()>,
    ) {
        let name = match Name::new(name) {
            Ok(name) => name,
            Err(error) => return done(Err(error.into())),
        };
        let fs = Arc::clone(self);
        let stamp = self.cache.stamp();
        let target = self.cache.entry(parent, &name).flatten();
        // A file that nobody uses shall go with its name, not a moment later.
        if let Some(held) = target.and_then(|target| self.leases.surrender(target)) {
            target.into_iter().for_each(|target| self.link.lease_dropped(target));
            self.close(held, || {});
        }
        let accept = |answer| match answer {
            Answer::Removed { target, parent } => Some((target, parent)),
            _ => None,
        };
        self.ask_change(request, call(parent, name.clone()), accept, move |removed| match removed {
            Ok((target, parent_attr)) => {
                fs.cache.change(stamp, |facts| {
                    fs.left(facts, target);
                    facts.attr(parent, parent_attr);
                    facts.entry(parent, &name, None);
                    facts.listing_changed(parent);
                });
                done(Ok(()));
                fs.drop_if_gone(target);
            }
            Err(refusal) => done(Err(fs.doubt(refusal, |facts| {
                facts.entry_unknown(parent, &name);
                // It may have lost a name.
                if let Some(target) = target {
                    facts.attr_unknown(target);
                }
            }))),
        });
    }

    /// Records an inode that has lost a name.
    pub(super) fn left(&self, facts: &Facts<'_>, target: NodeAttr) {
        let gone = target.attr.nlink == 0 || target.attr.kind == FileKind::Directory;
        if gone && !self.leases.is_open(target.node) {
            facts.attr_unknown(target.node);
            // The kernel forgets it now, unless a program has it open in a way that is not told here.
            self.cache.remember_removed(target.node, target.attr);
        } else {
            facts.attr(target.node, target.attr);
        }
    }

    /// Gives the lease of an inode back that has lost its last name, now or with its last handle.
    pub(super) fn drop_if_gone(self: &Arc<Self>, target: NodeAttr) {
        if target.attr.nlink == 0 {
            self.drive(self.leases.orphaned(target.node));
        }
    }
}
