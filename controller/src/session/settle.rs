//! Taking over into the map what backing files say, once nobody writes them any more.

use std::collections::BTreeSet;

use address_map::attr::Attr;
use address_map::error::{Refusal, Result};
use address_map::ids::Ino;
use address_map::map::Tree;
use address_map::namespace::object::{self, BackingFacts};
use address_map::namespace::replay::{self, Origin};
use address_map::record::{Change, Inode, ObjectRef};
use address_map::shard::Records;

use parking_lot::Mutex;

use super::{DataPlane, backing_file, io_refusal};
use crate::lease::{File, Writers};

/// How often a file is looked at again because writers came and went while it was.
const LOOKS_MAX: u32 = 8;

/// Most files remembered that could not be settled. One that is not stays volatile until it is written again.
const UNSETTLED_MAX: usize = 64 * 1024;

/// Files without a writer that could not be settled, because their pool did not answer.
#[derive(Default)]
pub(super) struct Unsettled(Mutex<BTreeSet<File>>);

impl DataPlane {
    /// The attributes of an inode as they are now: those of a volatile file come from its backing file.
    pub(crate) fn present(&self, file: File, inode: &Inode) -> Attr {
        if !inode.dirty {
            return inode.attr();
        }
        let mut current = inode.clone();
        match self.backing_facts(file, inode) {
            Ok(Some(facts)) => facts.overlay(&mut current),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot look at a backing file")
            }
        }
        current.attr()
    }

    fn backing_facts(&self, file: File, inode: &Inode) -> std::io::Result<Option<BackingFacts>> {
        match backing_file(file, inode) {
            Some(ObjectRef { pool, key }) => self.pools.get(pool)?.files.facts(&key),
            None => Ok(None),
        }
    }

    /// Takes over what the backing file of a volatile inode says; with it, remembers the request that asked for it. A
    /// file of an object store stays volatile: it is settled when its bytes are there, see [`super::staging`].
    ///
    /// The pool is asked before the shard's writer lock is taken: it may not answer, and the shard is others' too. Under
    /// the lock it is certain that the answer still holds, because a writer that came, went, or was there meanwhile is
    /// noticed (and none can begin: it has to pass the lock to mark the file). Then
    /// * with a writer, the file stays volatile, and is settled after that writer has gone: everybody who takes a writer
    ///   off the table of leases settles the file *afterwards*;
    /// * with one that has gone meanwhile, the file is looked at again. Should that never end, it stays volatile: the
    ///   last of those writers settles it in turn.
    pub(crate) fn settle(&self, tree: &Tree, ino: Ino, origin: Option<Origin>) -> Result<Inode> {
        let file = (tree.tenant(), ino);
        for look in 1.. {
            let watch = self.leases.watch_writers(file);
            let inode = tree.view().inode(ino)?.ok_or(Refusal::NotFound)?;
            // A file that was never written has no backing file yet: what the record says holds.
            let facts = self.backing_facts(file, &inode).map_err(io_refusal)?.unwrap_or(BackingFacts {
                size: inode.size,
                blocks: inode.blocks,
                mtime: inode.mtime,
            });
            let settled = tree.write(|txn| {
                let writers = watch.writers();
                if writers == Writers::Gone && look < LOOKS_MAX {
                    return Ok(None);
                }
                replay::remember(txn, origin, Change::Changed);
                let still_open = writers != Writers::None || self.store_of(&inode).is_some();
                object::settle(txn, ino, &facts, still_open).map(Some)
            })?;
            if let Some(inode) = settled {
                return Ok(inode);
            }
        }
        unreachable!("the last look settles")
    }

    /// As [`DataPlane::settle`]; what fails because of the pool is tried again later.
    pub(super) fn settle_or_later(&self, tree: &Tree, ino: Ino) -> Result<Inode> {
        self.settle(tree, ino, None).inspect_err(|error| {
            let mut unsettled = self.unsettled.0.lock();
            if error.refusal() != Refusal::NotFound && unsettled.len() < UNSETTLED_MAX {
                unsettled.insert((tree.tenant(), ino));
            }
        })
    }

    /// Settles what could not be settled before. Ends with the first file for which that is still so.
    pub(crate) fn settle_what_is_left(&self) {
        loop {
            let Some((tenant, ino)) = self.unsettled.0.lock().pop_first() else { return };
            // What is being written is settled when that ends; what is gone needs no settling.
            if self.leases.is_written((tenant, ino)) {
                continue;
            }
            let Ok(tree) = self.map.tree(tenant) else { continue };
            match self.settle_or_later(&tree, ino) {
                Err(error) if error.refusal() != Refusal::NotFound => return,
                _ => {}
            }
        }
    }
}
