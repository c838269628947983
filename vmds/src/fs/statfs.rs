//! Space and inodes, as `df` shows them: those of the tenant, not of the pool.

use std::sync::Arc;

use address_map::ids::NodeId;
use address_map::wire::{Answer, Call, Statfs};

use super::error::Errno;
use super::{Done, Fs};

impl Fs {
    /// Space and inodes of the tree that `node` belongs to.
    pub(crate) fn statfs(self: &Arc<Self>, node: NodeId, done: impl Done<Statfs>) {
        let accept = |answer| if let Answer::Statfs(statfs) = answer { Some(statfs) } else { None };
        self.ask(Call::Statfs { node }, accept, |statfs| done(statfs.map_err(Errno::from)));
    }
}
