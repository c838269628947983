//! Making things survive a loss of power: the bytes of a file first, then what is needed to find them.
//!
//! Bytes are synced here and not by the VMDS that wrote them. A sync can take a tenth of a second, and the system keeps a
//! process that was killed until its last call has come back: a VMDS that syncs would die that slowly, and what it
//! served could not go on with its successor meanwhile. Nobody has to wait for a sync that is nobody's any more: done
//! late or twice, it does no harm.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use address_map::error::{Refusal, Result};
use address_map::ids::NodeId;
use address_map::namespace::lookup;
use address_map::record::ObjectRef;
use address_map::wire::Answer;

use super::elsewhere::in_turn;
use super::serve::{Asked, Outcome};
use super::{DataPlane, Session, backing_file, io_refusal};

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
        match (self.to_sync(session, node), self.workers.handle()) {
            (Err(error), _) => self.reply(session, asked, Err(error)),
            (Ok(None), _) => self.sync_map_then_reply(session, asked, node),
            (Ok(Some(file)), Some(workers)) => {
                let (plane, asking) = (self.clone(), session.clone());
                let work = move || match plane.sync_bytes(&file, data_only) {
                    Ok(()) => plane.sync_map_then_reply(&asking, asked, node),
                    Err(error) => plane.reply(&asking, asked, Err(error)),
                };
                in_turn(workers, &session.syncs, work);
            }
            (Ok(Some(_)), None) => self.reply(session, asked, Err(Refusal::Busy.into())),
        }
    }

    /// Where the bytes of an inode are that somebody may have written, if it has any.
    fn to_sync(&self, session: &Session, node: NodeId) -> Result<Option<ObjectRef>> {
        let scope = self.scope(session, node)?;
        let inode = lookup::inode(&scope.tree.view(), scope.ino)?;
        Ok(backing_file(scope.file(scope.ino), &inode))
    }

    fn sync_bytes(&self, file: &ObjectRef, data_only: bool) -> Result<()> {
        let pool = self.pools.get(file.pool).map_err(io_refusal)?;
        let opened = match pool.files.open_object(&file.key, false, false) {
            // Nobody has written to it yet; or it is in the store, and nobody writes.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(io_refusal)?,
        };
        let sync = move |file: BorrowedFd<'_>| {
            let synced = if data_only { rustix::fs::fdatasync(file) } else { rustix::fs::fsync(file) };
            Ok(synced?)
        };
        pool.files.with_file(&opened, sync).map_err(io_refusal)
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
