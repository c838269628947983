//! Attributes: reading and changing them.

use std::sync::Arc;

use address_map::attr::{AttrChange, Caller};
use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::wire::Call;

use super::{Done, Fs, Known, Shown};
use crate::link::KernelRequest;

impl Fs {
    /// Attributes of an inode.
    pub(crate) fn getattr(self: &Arc<Self>, node: NodeId, done: impl Done<Shown>) {
        match self.known(node) {
            Some(Known::Now(attr)) => done(Ok(self.shown(None, node, attr, true))),
            Some(Known::OnFile(held, attr)) => {
                let fs = Arc::clone(self);
                let refreshed =
                    move |attr: Result<_, _>| done(attr.map(|attr| fs.shown(None, node, attr, true)));
                self.look(held, move |held| held.refresh(attr), refreshed);
            }
            None => {
                let fs = Arc::clone(self);
                let stamp = self.cache.stamp();
                self.ask(Call::Getattr { node }, super::accept_attr, move |attr| {
                    done(match attr {
                        Ok(attr) => {
                            let kept = fs.cache.learn(stamp, |facts| {
                                facts.attr(node, attr);
                                if !attr.has_xattrs {
                                    facts.bare(node);
                                }
                            });
                            Ok(fs.shown(None, node, attr, kept))
                        }
                        Err(Refusal::NotFound) => match fs.cache.removed(node) {
                            Some(attr) => Ok(fs.shown(None, node, attr, false)),
                            None => Err(Refusal::NotFound.into()),
                        },
                        Err(refusal) => Err(refusal.into()),
                    });
                });
            }
        }
    }

    /// Changes attributes. A change of size cuts or extends the backing file before it is answered. One of nothing, as
    /// `chown` may ask for, is a change all the same: it moves `ctime`.
    pub(crate) fn setattr(
        self: &Arc<Self>,
        request: KernelRequest,
        node: NodeId,
        caller: Caller,
        change: AttrChange,
        done: impl Done<Shown>,
    ) {
        let fs = Arc::clone(self);
        let stamp = self.cache.stamp();
        let call = Call::Setattr { node, caller, change };
        self.ask_change(request, call, super::accept_attr, move |attr| {
            if change.size.is_some() {
                if let Some(held) = fs.leases.held(node) {
                    held.forget_charge();
                }
                // A lease for reading leads to the object, or has the bytes, of before.
                fs.drive(fs.leases.changed(node));
            }
            done(match attr {
                Ok(attr) => {
                    let kept = fs.cache.change(stamp, |facts| {
                        if change.mode.is_some() {
                            // The access control list follows permission bits.
                            facts.xattrs_changed(node);
                        }
                        facts.attr(node, attr);
                    });
                    Ok(fs.shown(None, node, attr, kept))
                }
                Err(refusal) => Err(fs.doubt(refusal, |facts| facts.attr_unknown(node))),
            });
        });
    }
}
