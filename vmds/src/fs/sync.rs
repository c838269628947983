//! Making things survive a loss of power. All of it is done by the controller, which outlives this process: one that is
//! killed while it waits for a disk would be in its successor's way until the disk has answered.

use std::sync::Arc;

use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::wire::Call;

use super::error::Errno;
use super::{Done, Fs};

impl Fs {
    /// Makes an open file durable: its bytes, and what is needed to find them.
    pub(crate) fn fsync(self: &Arc<Self>, node: NodeId, data_only: bool, done: impl Done<()>) {
        self.ask(Call::Sync { node, data_only }, super::accept_done, move |synced| {
            done(match synced {
                // What was open and has gone is an I/O error.
                Err(Refusal::NotFound) => Err(Refusal::Io.into()),
                synced => synced.map_err(Errno::from),
            });
        });
    }

    /// Makes an open directory durable.
    pub(crate) fn fsyncdir(self: &Arc<Self>, node: NodeId, data_only: bool, done: impl Done<()>) {
        let fs = Arc::clone(self);
        self.ask(Call::Sync { node, data_only }, super::accept_done, move |synced| {
            done(match synced {
                // Of one that has been removed nothing has to survive.
                Err(Refusal::NotFound) if fs.cache.removed(node).is_some() => Ok(()),
                synced => synced.map_err(Errno::from),
            });
        });
    }
}
