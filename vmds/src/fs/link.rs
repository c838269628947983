//! Hard links.

use std::sync::Arc;

use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::name::Name;
use address_map::wire::Call;

use super::{Done, Fs, Shown};
use crate::link::KernelRequest;

impl Fs {
    /// Gives an inode another name, within one tree.
    pub(crate) fn link(
        self: &Arc<Self>,
        request: KernelRequest,
        node: NodeId,
        parent: NodeId,
        name: &[u8],
        done: impl Done<Shown>,
    ) {
        if node.slot() != parent.slot() {
            return done(Err(Refusal::CrossesShare.into()));
        }
        match Name::new(name) {
            Ok(name) => {
                let call = Call::Link { node, parent, name: name.clone() };
                self.ask_made(request, call, parent, name, done);
            }
            Err(error) => done(Err(error.into())),
        }
    }
}
