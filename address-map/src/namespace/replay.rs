//! Changes remembered per mount, so that a request that comes again is answered and not carried out again.
//!
//! A mount has a bounded number of places; a place is written over once the kernel has the answer of the request that
//! used it before. So nothing has to be cleaned up while a mount lives.

use super::object::collect_keys;
use crate::error::Result;
use crate::ids::MountEpoch;
use crate::key;
use crate::record::{Change, Replay};
use crate::shard::{Records, Txn, decode};

/// Which request a change is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The mount.
    pub mount: MountEpoch,
    /// The place of the mount that is free for this request.
    pub place: u16,
    /// The kernel's number of the request.
    pub unique: u64,
}

/// Remembers, with the change itself, what it is to be answered with.
pub fn remember(txn: &mut Txn<'_>, origin: Option<Origin>, change: Change) {
    if let Some(Origin { mount, place, unique }) = origin {
        txn.put(key::replay(txn.tenant(), mount, place), &Replay { unique, change });
    }
}

/// What came of a request of a mount, if it was carried out.
pub fn find<R: Records>(records: &R, mount: MountEpoch, unique: u64) -> Result<Option<Change>> {
    let mut found = None;
    records.scan_prefix(&key::replays(records.tenant(), mount), &mut |key, value| {
        let replay: Replay = decode(key, value)?;
        if replay.unique == unique {
            found = Some(replay.change);
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}

/// Forgets everything remembered for a mount that is gone.
pub fn forget(txn: &mut Txn<'_>, mount: MountEpoch) -> Result<()> {
    let mut keys = Vec::new();
    collect_keys(txn, &key::replays(txn.tenant(), mount), &mut keys)?;
    keys.into_iter().for_each(|key| txn.delete(key));
    Ok(())
}
