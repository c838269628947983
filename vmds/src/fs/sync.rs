//! Making things survive a loss of power.

use std::sync::Arc;

use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::wire::Call;

use super::error::Errno;
use super::{Done, Fs};

impl Fs {
    /// Makes a file durable: its bytes first, then what is needed to find them.
    pub(crate) fn fsync(self: &Arc<Self>, node: NodeId, data_only: bool, done: impl Done<()>) {
        let fs = Arc::clone(self);
        self.with_open(node, move |held| {
            let held = match held {
                Ok(held) => held,
                Err(errno) => return done(Err(errno)),
            };
            let after = Arc::clone(&fs);
            let synced = move |synced: Result<(), Errno>| match synced {
                Ok(()) => after.sync_metadata(node, done),
                Err(errno) => done(Err(errno)),
            };
            fs.look(held, move |held| held.sync(!data_only), synced);
        });
    }

    /// Makes what was acknowledged about an inode durable, save its bytes.
    pub(crate) fn sync_metadata(self: &Arc<Self>, node: NodeId, done: impl Done<()>) {
        let fs = Arc::clone(self);
        self.ask(Call::Sync { node }, super::accept_done, move |synced| {
            done(match synced {
                // Of a directory that is open and has been removed nothing has to survive.
                Err(Refusal::NotFound) if fs.cache.removed(node).is_some() => Ok(()),
                synced => synced.map_err(Errno::from),
            });
        });
    }
}
