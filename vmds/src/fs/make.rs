//! New inodes.

use std::sync::Arc;

use address_map::attr::{Caller, NewMode};
use address_map::ids::NodeId;
use address_map::name::Name;
use address_map::wire::{Answer, Call, Make};

use super::error::Errno;
use super::{Done, Fs, Opened, Shown, unexpected};
use crate::data::fd::Held;
use crate::link::KernelRequest;

/// A file that was made and opened.
#[derive(Debug)]
pub(crate) struct Created {
    /// The file.
    pub(crate) file: Shown,
    /// Its first handle.
    pub(crate) opened: Opened,
}

impl Fs {
    /// Makes anything but an open file.
    #[expect(clippy::too_many_arguments, reason = "as many as the request has")]
    pub(crate) fn make(
        self: &Arc<Self>,
        request: KernelRequest,
        parent: NodeId,
        name: &[u8],
        caller: Caller,
        mode: NewMode,
        what: Make,
        done: impl Done<Shown>,
    ) {
        match Name::new(name) {
            Ok(name) => {
                let call = Call::Make { parent, name: name.clone(), caller, mode, what };
                self.ask_made(request, call, parent, name, done);
            }
            Err(error) => done(Err(error.into())),
        }
    }

    /// Sends a call that is answered by [`Answer::Made`].
    pub(super) fn ask_made(
        self: &Arc<Self>,
        request: KernelRequest,
        call: Call,
        parent: NodeId,
        name: Name,
        done: impl Done<Shown>,
    ) {
        let fs = Arc::clone(self);
        let stamp = self.cache.stamp();
        let accept = |answer| match answer {
            Answer::Made { target, parent } => Some((target, parent)),
            _ => None,
        };
        self.ask_change(request, call, accept, move |made| {
            done(match made {
                Ok((target, parent_attr)) => {
                    let kept = fs.cache.change(stamp, |facts| {
                        facts.attr(target.node, target.attr);
                        facts.attr(parent, parent_attr);
                        facts.entry(parent, &name, Some(target.node));
                        facts.listing_changed(parent);
                    });
                    Ok(fs.shown(Some(parent), target.node, target.attr, kept))
                }
                Err(refusal) => Err(fs.doubt(refusal, |facts| facts.entry_unknown(parent, &name))),
            });
        });
    }

    /// Makes a regular file and opens it.
    #[expect(clippy::too_many_arguments, reason = "as many as the request has")]
    pub(crate) fn create(
        self: &Arc<Self>,
        request: KernelRequest,
        parent: NodeId,
        name: &[u8],
        caller: Caller,
        mode: NewMode,
        write: bool,
        done: impl Done<Created>,
    ) {
        let name = match Name::new(name) {
            Ok(name) => name,
            Err(error) => return done(Err(error.into())),
        };
        if !self.leases.has_room() {
            return done(Err(Errno::TOO_MANY_FILES));
        }
        let fs = Arc::clone(self);
        let stamp = self.cache.stamp();
        let call = Call::Create { parent, name: name.clone(), caller, mode };
        self.change(request, call, move |outcome| {
            let refusal = match outcome {
                Ok((Answer::Created { file, parent: parent_attr, lease }, Some(fd))) => {
                    let kept = fs.cache.change(stamp, |facts| {
                        facts.attr(file.node, file.attr);
                        facts.attr(parent, parent_attr);
                        facts.entry(parent, &name, Some(file.node));
                        facts.listing_changed(parent);
                    });
                    let (granted, steps) = fs.leases.created(file.node, Held::new(fd, lease), write);
                    let shown = fs.shown(Some(parent), file.node, file.attr, kept);
                    done(Ok(Created { file: shown, opened: fs.opened(file.node, write, &granted) }));
                    return fs.drive(steps);
                }
                Ok(_) => unexpected(),
                Err(refusal) => refusal,
            };
            done(Err(fs.doubt(refusal, |facts| facts.entry_unknown(parent, &name))));
        });
    }
}
