//! Names that move.

use std::sync::Arc;

use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::name::Name;
use address_map::wire::{Answer, Call, RenameMode};

use super::{Done, Fs};
use crate::link::KernelRequest;

impl Fs {
    /// Moves a name, within one tree.
    pub(crate) fn rename(
        self: &Arc<Self>,
        request: KernelRequest,
        (parent, name): (NodeId, &[u8]),
        (new_parent, new_name): (NodeId, &[u8]),
        mode: RenameMode,
        done: impl Done<()>,
    ) {
        if parent.slot() != new_parent.slot() {
            return done(Err(Refusal::CrossesShare.into()));
        }
        let (name, new_name) = match (Name::new(name), Name::new(new_name)) {
            (Ok(name), Ok(new_name)) => (name, new_name),
            (Err(error), _) | (_, Err(error)) => return done(Err(error.into())),
        };
        let fs = Arc::clone(self);
        let stamp = self.cache.stamp();
        let call = Call::Rename { parent, name: name.clone(), new_parent, new_name: new_name.clone(), mode };
        let known = |parent, name| self.cache.entry(parent, name).flatten();
        let touched: Vec<_> =
            [known(parent, &name), known(new_parent, &new_name)].into_iter().flatten().collect();
        let accept = |answer| match answer {
            Answer::Renamed { moved, other, parent, new_parent } => Some((moved, other, parent, new_parent)),
            _ => None,
        };
        self.ask_change(request, call, accept, move |renamed| match renamed {
            Ok((moved, other, parent_attr, new_parent_attr)) => {
                let exchanged = other.filter(|_| mode == RenameMode::Exchange);
                let replaced = other.filter(|_| mode != RenameMode::Exchange);
                fs.cache.change(stamp, |facts| {
                    facts.attr(moved.node, moved.attr);
                    if let Some(exchanged) = exchanged {
                        facts.attr(exchanged.node, exchanged.attr);
                    }
                    if let Some(replaced) = replaced {
                        fs.left(facts, replaced);
                    }
                    facts.attr(parent, parent_attr);
                    facts.attr(new_parent, new_parent_attr);
                    facts.entry(parent, &name, exchanged.map(|other| other.node));
                    facts.entry(new_parent, &new_name, Some(moved.node));
                    facts.listing_changed(parent);
                    facts.listing_changed(new_parent);
                });
                done(Ok(()));
                if let Some(replaced) = replaced {
                    fs.drop_if_gone(replaced);
                }
            }
            Err(refusal) => done(Err(fs.doubt(refusal, |facts| {
                facts.entry_unknown(parent, &name);
                facts.entry_unknown(new_parent, &new_name);
                for touched in touched {
                    facts.attr_unknown(touched);
                }
            }))),
        });
    }
}
