//! Files that are made much smaller. The system gives back the memory that has copies of their bytes while the caller
//! waits, a fifth of a millisecond for each MiB: somebody else does it, and what else the tenant asks for goes on.
//!
//! The application that cuts a file waits, and the kernel sends nothing else about the file meanwhile. When the VMDS is
//! killed, though, the request comes again from its successor while the first may still be at work, or wait for its turn.
//! So whoever cuts a file does it alone, looks first whether it was done already, and whether the VMDS that it is done
//! for still is the one that serves: what comes too late must not cut off what was written since.

use std::sync::Arc;
use std::time::Duration;

use address_map::attr::AttrChange;
use address_map::error::{Refusal, Result};
use address_map::ids::NodeId;
use address_map::namespace::lookup;
use address_map::namespace::replay::Origin;
use address_map::wire::{Answer, Call};

use super::elsewhere::in_turn;
use super::serve::{Asked, Outcome};
use super::staging::Pace;
use super::{DataPlane, Session, backing_file, io_refusal};
use crate::lease::File;

/// Bytes that a file can lose within a request that others wait behind.
const QUICK_MAX: u64 = 8 << 20;
/// A request that has waited this long is not carried out any more: soon the VMDS will have given it up, and the program
/// will have gone on.
const WAITED_MAX: Duration = Duration::from_secs(40);

impl DataPlane {
    /// Answers a call that changes the size of a file of a posix pool. Any other is left to the caller, and `asked`
    /// with it.
    pub(super) fn answer_cut(
        self: &Arc<Self>,
        session: &Arc<Session>,
        asked: Asked,
        call: &Call,
        origin: Option<Origin>,
    ) -> Option<Asked> {
        let Call::Setattr { node, change: AttrChange { size: Some(size), .. }, .. } = call else {
            return Some(asked);
        };
        let (file, large) = match self.what_is_cut(session, *node, *size) {
            Ok(found) => found,
            Err(error) => {
                self.reply(session, asked, Err(error));
                return None;
            }
        };
        if !large {
            let cut = |_: &mut _| self.cut(session, &asked, call.clone(), origin);
            match self.staging.alone(file, Pace::Quick, cut) {
                Some(Some(outcome)) => {
                    self.reply(session, asked, outcome);
                    return None;
                }
                Some(None) => return None,
                None => {}
            }
        }
        let Some(workers) = self.disk_workers.handle() else {
            self.reply(session, asked, Err(Refusal::Io.into()));
            return None;
        };
        let (plane, asking, call) = (self.clone(), session.clone(), call.clone());
        let work = move || {
            if !asking.speaks_on(&asked.link) {
                return;
            }
            let cut = |_: &mut _| plane.cut(&asking, &asked, call, origin);
            match plane.staging.alone(file, Pace::Slow, cut) {
                Some(Some(outcome)) => plane.reply(&asking, asked, outcome),
                Some(None) => {}
                // Somebody else is at it, and that takes long. Who asks again hears what came of it.
                None => plane.reply(&asking, asked, Ok(Outcome::unchanged(Answer::Pending))),
            }
        };
        in_turn(workers, &session.cuts, work);
        None
    }

    /// The file, and whether it loses much.
    fn what_is_cut(&self, session: &Session, node: NodeId, size: u64) -> Result<(File, bool)> {
        let scope = self.scope(session, node)?;
        let inode = lookup::inode(&scope.tree.view(), scope.ino)?;
        let file = scope.file(scope.ino);
        let backing = backing_file(file, &inode).filter(|_| inode.dirty);
        let facts = backing.map(|backing| {
            let pool = self.pools.get(backing.pool)?;
            pool.files.facts(&backing.key)
        });
        let now = facts.transpose().map_err(io_refusal)?.flatten().map_or(inode.size, |facts| facts.size);
        Ok((file, now.saturating_sub(size) > QUICK_MAX))
    }

    /// Carries out the call, unless that was done; `None`: nobody waits for it any more.
    pub(super) fn cut(
        &self,
        session: &Session,
        asked: &Asked,
        call: Call,
        origin: Option<Origin>,
    ) -> Option<Result<Outcome>> {
        if !session.speaks_on(&asked.link) || asked.since.elapsed() > WAITED_MAX {
            return None;
        }
        let before = origin.map(|origin| self.answer_again(session, &call, origin.unique)).transpose();
        Some(match before {
            Ok(Some(Some(again))) => Ok(again),
            Ok(_) => self.answer(session, call, origin),
            Err(error) => Err(error),
        })
    }
}
