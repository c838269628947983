//! Making things survive a loss of power: the bytes of a file first, then what is needed to find them.
//!
//! Bytes are synced here and not by the VMDS that wrote them. A sync can take a tenth of a second, and the system keeps a
//! process that was killed until its last call has come back: a VMDS that syncs would die that slowly, and what it
//! served could not go on with its successor meanwhile.
//!
//! The system tells of bytes that it could not write once. If nobody waits any more for the sync that hears of it, the
//! next one of the same file fails for it.

use std::sync::Arc;

use address_map::error::{Refusal, Result};
use address_map::ids::NodeId;
use address_map::namespace::lookup;
use address_map::record::{Layout, ObjectRef};
use address_map::wire::Answer;
use dashmap::DashSet;
use parking_lot::Mutex;

use super::elsewhere::in_turn;
use super::serve::{Asked, Outcome};
use super::staging::WORKING_AFTER;
use super::{DataPlane, Session, backing_file, io_refusal};

/// Backing files whose bytes could not be written, and nobody has heard of it.
pub(super) type LostErrors = DashSet<ObjectRef>;

/// A backing file.
struct Backing {
    object: ObjectRef,
    /// There may be none: nobody has written to it yet, or its bytes are in an object store.
    optional: bool,
}

impl DataPlane {
    /// Makes an inode durable, bytes and all that was acknowledged about it, and replies then. `data_only`: the backing
    /// file's own attributes need not be.
    pub(super) fn sync_then_reply(
        self: &Arc<Self>,
        session: &Arc<Session>,
        asked: Asked,
        node: NodeId,
        data_only: bool,
    ) {
        let backing = match self.to_sync(session, node) {
            Ok(Some(backing)) => backing,
            Ok(None) => return self.sync_map_then_reply(session, asked, node),
            Err(error) => return self.reply(session, asked, Err(error)),
        };
        let Some(workers) = self.disk_workers.handle() else {
            return self.reply(session, asked, Err(Refusal::Busy.into()));
        };
        let (plane, asking, link) = (self.clone(), session.clone(), asked.link.clone());
        let owed = Arc::new(Mutex::new(Some(asked)));
        let (patient, waiting, slow) = (self.clone(), session.clone(), owed.clone());
        let in_time = workers.spawn(async move {
            tokio::time::sleep(WORKING_AFTER).await;
            if let Some(asked) = slow.lock().take() {
                patient.reply(&waiting, asked, Ok(Outcome::unchanged(Answer::Pending)));
            }
        });
        in_turn(workers, &session.syncs, move || {
            // The successor of a VMDS asks for what it was asked for itself.
            let synced = asking.speaks_on(&link).then(|| plane.sync_bytes(&backing, data_only));
            in_time.abort();
            let asked = owed.lock().take().filter(|asked| asking.speaks_on(&asked.link));
            match (synced, asked) {
                (Some(Ok(())), Some(asked)) => plane.sync_map_then_reply(&asking, asked, node),
                (Some(Err(error)), Some(asked)) => plane.reply(&asking, asked, Err(error)),
                (Some(Err(_)), None) => drop(plane.lost_errors.insert(backing.object)),
                (Some(Ok(())), None) | (None, _) => {}
            }
        });
    }

    /// Where the bytes of an inode are that somebody may have written, if it has any.
    fn to_sync(&self, session: &Session, node: NodeId) -> Result<Option<Backing>> {
        let scope = self.scope(session, node)?;
        let inode = lookup::inode(&scope.tree.view(), scope.ino)?;
        let in_pool = matches!(inode.layout, Layout::Object(_));
        let optional = inode.dirty || inode.size == 0 || !in_pool;
        Ok(backing_file(scope.file(scope.ino), &inode).map(|object| Backing { object, optional }))
    }

    fn sync_bytes(&self, backing: &Backing, data_only: bool) -> Result<()> {
        let Backing { object, optional } = backing;
        let pool = self.pools.get(object.pool).map_err(io_refusal)?;
        let found = pool.files.sync_bytes(&object.key, data_only).map_err(io_refusal)?;
        let failed_before = self.lost_errors.remove(object).is_some();
        if failed_before || !(found || *optional) { Err(Refusal::Io.into()) } else { Ok(()) }
    }

    /// Makes what was acknowledged about an inode durable, save its bytes, and replies then.
    fn sync_map_then_reply(self: &Arc<Self>, session: &Arc<Session>, asked: Asked, node: NodeId) {
        if let Err(error) = self.prepare_sync(session, node) {
            return self.reply(session, asked, Err(error));
        }
        let (plane, session) = (self.clone(), session.clone());
        self.committer.when_durable(move |durable| {
            plane.reply(&session, asked, durable.map(|()| Outcome::unchanged(Answer::Done)));
        });
    }
}
